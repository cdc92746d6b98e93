// What Khronos's validator says of a file, as JSON: node validate.cjs FILE, where gltf-validator is installed.
const fs = require("fs");
const validator = require("gltf-validator");

validator
  .validateBytes(new Uint8Array(fs.readFileSync(process.argv[2])))
  .then((report) => console.log(JSON.stringify({ version: validator.version(), issues: report.issues })));
