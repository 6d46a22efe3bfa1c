"use strict";
/** Read the arrays of a page and make its elements. All text enters as text, never as HTML. */
const page = (() => {
  /**
   * Return an element with properties and children; strings become text. `on...` are listeners; false and null are left out.
   * @template {keyof HTMLElementTagNameMap} N
   * @param {N} name
   * @param {Record<string, unknown>} properties
   * @param {...(Node | string)} children
   * @returns {HTMLElementTagNameMap[N]}
   */
  function make(name, properties = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(properties)) {
      if (key.startsWith("on")) element.addEventListener(key.slice(2), /** @type {EventListener} */ (value));
      else if (key.startsWith("aria-")) element.setAttribute(key, String(value));
      else if (value !== false && value !== null) element.setAttribute(key, value === true ? "" : String(value));
    }
    element.append(...children);
    return element;
  }

  /**
   * Return the typed array of a base64 text.
   * @template {Int16Array | Int32Array | Float64Array | Uint8Array} T
   * @param {string} text
   * @param {new (buffer: ArrayBuffer) => T} Type
   * @returns {T}
   */
  function decode(text, Type) {
    const letters = atob(text), bytes = new Uint8Array(letters.length);
    for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
    return new Type(bytes.buffer);
  }

  /**
   * Return a number with fixed decimals, "n/a" for none.
   * @param {number | null | undefined} value @param {number} digits
   */
  const text = (value, digits = 3) => (typeof value === "number" && Number.isFinite(value) ? value.toFixed(digits) : "n/a");

  /**
   * Return a button that is pressed or not.
   * @param {string | Node} label @param {boolean} pressed @param {() => void} press @param {Record<string, unknown>} properties
   */
  const button = (label, pressed, press, properties = {}) =>
    make("button", { type: "button", "aria-pressed": pressed, onclick: press, ...properties }, label);

  /**
   * Return a list to choose from, with its label.
   * @param {string} label @param {string} value @param {[string, string][]} choices name and title
   * @param {(name: string) => void} pick
   */
  function picker(label, value, choices, pick) {
    const select = make("select", { "aria-label": label, onchange: () => pick(select.value) });
    for (const [name, title] of choices) select.append(make("option", { value: name, selected: name === value }, title));
    return make("label", {}, `${label} `, select);
  }

  /**
   * Return a table with a line of column headings.
   * @param {string[]} columns @param {HTMLTableRowElement[]} lines @param {string} caption
   */
  function table(columns, lines, caption = "") {
    const head = make("thead", {}, make("tr", {}, ...columns.map((name, i) => make("th", { scope: "col", class: i ? "" : "words" }, name))));
    return make("table", {}, ...(caption ? [make("caption", {}, caption)] : []), head, make("tbody", {}, ...lines));
  }

  /**
   * Return a line of a table; the first cell has words.
   * @param {...(Node | string)} cells
   */
  const line = (...cells) => make("tr", {}, ...cells.map((cell, i) => make("td", { class: i ? "" : "words" }, cell)));

  /**
   * Return a part that scrolls sideways where it is too wide, also by keyboard.
   * @param {string} label @param {HTMLElement} content @param {string} more classes
   */
  const scroller = (label, content, more = "") =>
    make("div", { class: `table ${more}`, tabindex: 0, role: "group", "aria-label": label }, content);

  /**
   * Return what the address keeps of a state after `#name=`; values that do not fit are left out. Null: the address has none.
   * @param {string} name @param {Record<string, (value: any) => boolean>} fits for each part of the state
   */
  function readState(name, fits) {
    if (!location.hash.startsWith(`#${name}=`)) return null;
    try {
      const given = Object.entries(JSON.parse(decodeURIComponent(location.hash.slice(name.length + 2))));
      return Object.fromEntries(given.filter(([part, value]) => Object.hasOwn(fits, part) && fits[part](value)));
    } catch (error) {
      if (error instanceof SyntaxError || error instanceof URIError || error instanceof TypeError) return null;
      throw error;
    }
  }

  /**
   * Keep a state in the address: the parts that differ from the first state of the page.
   * @template {object} S
   * @param {string} name @param {S} state @param {S} first
   */
  function keepState(name, state, first) {
    const differs = Object.entries(state).filter(([part, value]) => JSON.stringify(value) !== JSON.stringify(first[/** @type {keyof S} */ (part)]));
    history.replaceState(null, "", differs.length ? `#${name}=${encodeURIComponent(JSON.stringify(Object.fromEntries(differs)))}` : `#${name}`);
  }

  return { scroller, decode, make, text, button, picker, table, line, readState, keepState };
})();
