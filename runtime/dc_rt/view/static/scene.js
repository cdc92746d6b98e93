// Depth in space: a point or a corner of a mesh for every pixel, placed on the graphics card.
"use strict";

// What a pixel is in space, as dc_rt.geometry has it: 1/z = 1/far + d (1/near - 1/far), z along the camera's axis;
// x to the right, y up, and the camera at the origin looks along -z. The focal length is in widths of the picture.
const PLACE = `
  precision highp float;
  precision highp int;
  precision highp usampler2D;
  uniform usampler2D disparity;
  uniform ivec2 size;
  uniform int stride;
  uniform float levels, focal, nearest, farthest, pixelAspect;

  float share(ivec2 pixel) {
    return float(texelFetch(disparity, clamp(pixel, ivec2(0), size - 1), 0).r) / levels;
  }
  float distanceOf(float d) {
    return 1.0 / (1.0 / farthest + d * (1.0 / nearest - 1.0 / farthest));
  }
`;

const VERTEX = `${PLACE}
  uniform mat4 modelViewMatrix, projectionMatrix;
  uniform float pointScale, pixelsPerUnit;
  out highp vec2 place;

  void main() {
    int columns = (size.x + stride - 1) / stride;
    ivec2 pixel = min(ivec2(gl_VertexID % columns, gl_VertexID / columns) * stride, size - 1);
    float z = distanceOf(share(pixel));
    vec2 middle = (vec2(pixel) + 0.5 - 0.5 * vec2(size)) / float(size.x);
    vec4 seen = modelViewMatrix * vec4(middle.x * z / focal, -middle.y * z / (focal * pixelAspect), -z, 1.0);
    gl_Position = projectionMatrix * seen;
    // As large as the pixel is at its distance: seen from the camera, points of scale 1 just touch.
    float width = float(stride) * max(1.0, 1.0 / pixelAspect) / float(size.x) * z / focal;
    gl_PointSize = max(1.0, pointScale * width * pixelsPerUnit / max(-seen.z, 1e-6));
    place = vec2(pixel);
  }
`;

const FRAGMENT = `${PLACE}
  uniform sampler2D picture, colours;
  uniform bool isMesh;
  uniform float edge, blend;
  in highp vec2 place;
  out vec4 colour;

  void main() {
    if (isMesh && edge >= 0.0) {
      ivec2 corner = ivec2(floor(place / float(stride))) * stride;
      vec4 corners = vec4(share(corner), share(corner + ivec2(stride, 0)), share(corner + ivec2(0, stride)),
                          share(corner + stride));
      float near = max(max(corners.x, corners.y), max(corners.z, corners.w));
      float far = min(min(corners.x, corners.y), min(corners.z, corners.w));
      if (distanceOf(far) > (1.0 + edge) * distanceOf(near)) discard;
    }
    vec3 source = texture(picture, (place + 0.5) / vec2(size)).rgb;
    vec3 depth = texelFetch(colours, ivec2(share(ivec2(round(place))) * 255.0, 0), 0).rgb;
    colour = vec4(mix(source, depth, blend), 1.0);
  }
`;

const GROUND = 0x0d0b11;

class SpaceView {
  /** Of what has no better value: points overlap a little; a step in distance of a tenth is an edge. */
  static defaults = { pointScale: 1.2, edge: 0.1 };

  /** Throws where the browser has no WebGL 2. `lens` has focal, near and far; `onmove` is called as the view changes. */
  constructor(canvas, { width, height, pixelAspect, bits }, lens, onmove) {
    this.canvas = canvas;
    this.aspect = (width * pixelAspect) / height;
    this.renderer = new THREE.WebGLRenderer({ canvas, antialias: true, powerPreference: "high-performance" });
    this.renderer.setClearColor(GROUND);
    this.renderer.sortObjects = false;
    this.lens = { ...lens };
    this.middle = (lens.near * lens.far) ** 0.5;
    this.pixels = { width, height };
    this.stride = 1;
    this.isMesh = true;

    this.disparity = new THREE.DataTexture(
      new Uint16Array(width * height), width, height, THREE.RedIntegerFormat, THREE.UnsignedShortType,
    );
    this.disparity.internalFormat = "R16UI";
    this.disparity.unpackAlignment = 1;
    this.picture = new THREE.Texture();
    this.picture.flipY = false;
    this.picture.generateMipmaps = false;
    this.picture.minFilter = THREE.LinearFilter;
    this.colours = new THREE.DataTexture(new Uint8Array(256 * 4), 256, 1);
    this.uniforms = Object.fromEntries(
      Object.entries({
        disparity: this.disparity, picture: this.picture, colours: this.colours,
        size: new Int32Array([width, height]), stride: 1, levels: 2 ** bits - 1,
        focal: lens.focal, nearest: lens.near, farthest: lens.far, pixelAspect,
        pixelsPerUnit: 1, isMesh: true, blend: 0, ...SpaceView.defaults,
      }).map(([name, value]) => [name, { value }]),
    );
    this.material = new THREE.RawShaderMaterial({
      glslVersion: THREE.GLSL3, vertexShader: VERTEX, fragmentShader: FRAGMENT, uniforms: this.uniforms,
      side: THREE.DoubleSide,
    });
    this.scene = new THREE.Scene();
    this.#build();

    this.eye = new THREE.PerspectiveCamera();
    this.controls = new THREE.OrbitControls(this.eye, canvas);
    this.controls.zoomToCursor = true;
    this.controls.enableDamping = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.isUntouched = true;
    this.controls.addEventListener("start", () => (this.isUntouched = false));
    this.controls.addEventListener("change", () => {
      this.isStale = true;
      onmove();
    });
    new ResizeObserver(() => this.#fit()).observe(canvas.parentElement);
    canvas.addEventListener("webglcontextrestored", () => this.#build());
    this.home();
  }

  /** Show a frame: depth as whole numbers, and its picture. The first one says what is in the middle of the scene. */
  show({ values, image }) {
    this.disparity.image = { data: values, ...this.pixels };
    this.disparity.needsUpdate = true;
    this.picture.image = image;
    this.picture.needsUpdate = true;
    if (!this.hasFrame) {
      this.hasFrame = true;
      const some = values.filter((_, index) => index % 97 === 0).sort();
      this.median = some[some.length >> 1] / this.uniforms.levels.value;
      this.home();
    }
    this.isStale = true;
  }

  /** A table of colours, RGBA uint8 [256,4], for depth. */
  paint(table) {
    this.colours.image.data.set(table);
    this.colours.needsUpdate = true;
    this.isStale = true;
  }

  /** Set uniforms by name; and `stride`, which is how many pixels lie between two points. */
  set(values) {
    for (const [name, value] of Object.entries(values)) this.uniforms[name].value = value;
    const { stride, isMesh } = this.uniforms;
    if (stride.value !== this.stride || isMesh.value !== this.isMesh) this.#build();
    this.isStale = true;
  }

  /** Another focal length, nearest and farthest distance: a view that nobody has changed follows. */
  setLens(lens) {
    this.lens = { ...lens };
    this.set({ focal: lens.focal, nearest: lens.near, farthest: lens.far });
    this.#fit();
    if (this.isUntouched) this.#look(this.isAsCamera);
  }

  /** Look from a little aside, so that depth is seen. */
  home() {
    this.#look(false);
  }

  /** Look from where the source's camera was. */
  lookAsCamera() {
    this.#look(true);
  }

  /** Draw if anything has changed; returns whether it has. */
  draw() {
    this.controls.update();
    if (!this.isStale || !this.hasFrame) return false;
    this.isStale = false;
    this.renderer.render(this.scene, this.eye);
    return true;
  }

  /** The scene as a PNG, as large as it is drawn. */
  async screenshot() {
    this.renderer.render(this.scene, this.eye);
    return new Promise((resolve) => this.canvas.toBlob(resolve, "image/png"));
  }

  #look(isAsCamera) {
    const { near, far } = this.lens;
    const middle = 1 / (1 / far + (this.median ?? 0.5) * (1 / near - 1 / far));
    const isDamped = this.controls.enableDamping;
    this.controls.enableDamping = false; // what is left of a movement ends here
    this.controls.update();
    this.controls.target.set(0, 0, -middle);
    const aside = isAsCamera ? [0, 0, 0] : [0.25 * middle, 0.12 * middle, 0.2 * middle];
    this.eye.position.set(...aside);
    this.eye.near = Math.min(near, middle) / 100;
    this.eye.far = far * 30;
    this.controls.minDistance = middle / 1000;
    this.controls.maxDistance = far * 10;
    this.controls.update();
    this.controls.enableDamping = isDamped;
    this.isAsCamera = isAsCamera;
    this.isUntouched = true;
    this.#fit();
  }

  /** Fit the whole picture into the canvas, whatever its shape, as it is seen from the camera. */
  #fit() {
    const { clientWidth: width, clientHeight: height } = this.canvas.parentElement;
    if (!width || !height) return;
    const across = 0.5 / this.lens.focal;
    const tangent = Math.max(across / this.aspect, across / (width / height));
    this.eye.fov = (2 * Math.atan(tangent) * 180) / Math.PI;
    this.eye.aspect = width / height;
    this.eye.updateProjectionMatrix();
    this.renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
    this.renderer.setSize(width, height, false);
    this.uniforms.pixelsPerUnit.value = this.canvas.height / (2 * tangent);
    this.isStale = true;
  }

  #build() {
    const stride = (this.stride = this.uniforms.stride.value);
    this.isMesh = this.uniforms.isMesh.value;
    const columns = Math.ceil(this.pixels.width / stride);
    const rows = Math.ceil(this.pixels.height / stride);
    const geometry = new THREE.BufferGeometry();
    if (this.isMesh) {
      const index = new THREE.BufferAttribute(triangles(columns, rows), 1);
      index.onUpload(function () {
        this.array = null; // it is on the graphics card, and large
      });
      geometry.setIndex(index);
    } else {
      geometry.setDrawRange(0, columns * rows);
    }
    const shape = this.isMesh ? new THREE.Mesh(geometry, this.material) : new THREE.Points(geometry, this.material);
    shape.frustumCulled = false;
    for (const old of [...this.scene.children]) {
      this.scene.remove(old);
      old.geometry.dispose();
    }
    this.scene.add(shape);
    this.isStale = true;
  }
}

/** Two triangles for every four neighbours of a grid: Uint32Array of corners' numbers. */
function triangles(columns, rows) {
  const corners = new Uint32Array(Math.max(columns - 1, 0) * Math.max(rows - 1, 0) * 6);
  let at = 0;
  for (let row = 0; row < rows - 1; row++) {
    for (let column = 0; column < columns - 1; column++) {
      const corner = row * columns + column;
      corners.set([corner, corner + columns, corner + 1, corner + 1, corner + columns, corner + columns + 1], at);
      at += 6;
    }
  }
  return corners;
}
