// The options of a run, as the service lists them; those that people change come first.

import { make } from "./dom.js";

const COMMON = ["max_res", "steps", "sampler", "size", "outputs"];
const LABELS = { max_res: "Largest side", steps: "Steps", size: "Size of the results" };
const GROUPS = { sampling: "Sampling", source: "Of the video", outputs: "What is written" };

/** Put the fields of these options into `place`; the returned function gives the values that are not the default ones. */
export function optionFields(options, place) {
  const fields = new Map(options.map((option) => [option.name, field(option)]));
  const named = (names) => names.filter((name) => fields.has(name)).map((name) => fields.get(name).element);
  const more = Object.entries(GROUPS).map(([group, title]) => {
    const names = options.filter((option) => option.group === group && !COMMON.includes(option.name));
    return make("fieldset", {}, make("legend", { textContent: title }), ...named(names.map((option) => option.name)));
  });
  place.replaceChildren(
    make("div", { className: "common" }, ...named(COMMON)),
    make("details", {}, make("summary", { textContent: "More options" }), ...more.filter((set) => set.children.length > 1)),
  );
  return () => {
    const values = [...fields].map(([name, { value }]) => [name, value()]);
    return Object.fromEntries(values.filter(([, value]) => value !== undefined));
  };
}

/** Its element, and a function that gives its value: undefined where it is the default one. */
function field(option) {
  if (option.kind === "names") return checkboxes(option);
  const id = `option-${option.name}`;
  const label = make("label", { htmlFor: id, textContent: labelOf(option.name) });
  const help = make("small", { id: `${id}-help`, textContent: option.help });
  const input = inputOf(option);
  input.id = id;
  input.setAttribute("aria-describedby", help.id);
  const value = () => (option.kind === "boolean" ? input.checked : input.value.trim());
  const initial = value();
  return {
    element: make("p", { className: `field ${option.kind}` }, label, input, help),
    value: () => (value() === initial || value() === "" ? undefined : typed(option, value())),
  };
}

function inputOf({ kind, choices, least, most, default: initial }) {
  if (kind === "boolean") return make("input", { type: "checkbox", checked: initial });
  if (kind === "choice") {
    const options = choices.map((each) => make("option", { value: each, textContent: each, selected: each === initial }));
    return make("select", {}, ...options);
  }
  const input = make("input", { autocomplete: "off", spellcheck: false, value: String(initial) });
  if (kind === "integer" || kind === "number") {
    Object.assign(input, { type: "number", step: kind === "integer" ? 1 : "any", min: least ?? "", max: most ?? "" });
  }
  return input;
}

/** What is no number is sent as it is: the service says what is wrong with it. */
function typed({ kind }, value) {
  if (kind !== "integer" && kind !== "number") return value;
  return Number.isFinite(Number(value)) ? Number(value) : value;
}

function checkboxes(option) {
  const boxes = option.choices.map((name) => {
    const box = make("input", { type: "checkbox", value: name, checked: option.default.includes(name) });
    return { box, element: make("label", { title: option.choices_help?.[name] ?? "" }, box, make("span", { textContent: name })) };
  });
  const chosen = () => boxes.filter(({ box }) => box.checked).map(({ box }) => box.value);
  return {
    element: make(
      "fieldset",
      { className: "boxes" },
      make("legend", { textContent: labelOf(option.name) }),
      ...boxes.map(({ element }) => element),
    ),
    value: () => (chosen().join() === option.default.join() ? undefined : chosen()),
  };
}

function labelOf(name) {
  const words = LABELS[name] ?? name.replaceAll("_", " ");
  return (words[0].toUpperCase() + words.slice(1)).replace(/\b(exr|fps)\b/i, (name) => name.toUpperCase());
}
