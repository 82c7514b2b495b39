(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const key = `medkd-review:${data.review}`;
  const by = (id) => document.getElementById(id);
  const [RIGHT, WRONG, NOT_SAID] = data.verdicts;
  let row = 0;
  let state = { reviewer: "", rows: {} };
  try {
    state = JSON.parse(localStorage.getItem(key)) || state;
  } catch {
    // A browser that keeps nothing for files: what is filled in lives until the page is closed.
  }

  const review = reviewRows(data);
  const { shown, itemsField, leafOf, kindOf, asText } = review;
  const current = () => data.rows[row];
  const filled = (one) => (state.rows[one.sample_id] ||= review.blank());
  const here = () => filled(current());
  const uncorrected = (one) => review.uncorrected(one, filled(one));
  const isDone = (one) => review.isDone(one, filled(one));

  function keep() {
    try {
      localStorage.setItem(key, JSON.stringify(state));
    } catch {
      by("said").textContent = "This browser keeps nothing; save the file before you close the page.";
    }
    const done = data.rows.filter(isDone).length;
    by("done").value = done;
    by("said").textContent = `${done} judged`;
    const left = uncorrected(current());
    const warning = by("left");
    if (warning) {
      warning.hidden = !left.length;
      warning.textContent = left.length ? `Not corrected: ${left.map(words).join(", ")}. Without that the row is left out.` : "";
    }
  }

  // --- drawing: text only, never markup ---

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value === true) element.setAttribute(name, "");
      else if (value !== false && value !== undefined) element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  const words = (path) => path.replace(/\[\]\./g, ": ").replace(/\./g, ": ").replace(/_/g, " ");
  const title = (name) => name.replace(/_/g, " ");

  function value(said) {
    const entries = Array.isArray(said) ? said : [said];
    if (!entries.length) return make("span", { class: "silent" }, "nothing");
    const box = make("span", {});
    entries.forEach((entry, place) => {
      if (place) box.append(make("span", { class: "between" }, " · "));
      const text = Array.isArray(entry) ? entry.join(", ") || "nothing" : entry;
      box.append(make("span", { class: text === data.not_provided || text === "nothing" ? "silent" : "said" }, text));
    });
    return box;
  }

  function talk() {
    const box = by("talk");
    box.replaceChildren(make("ol", {}, ...current().turns.map((turn) =>
      make("li", { id: `turn-${turn.number}`, class: turn.speaker.toLowerCase().startsWith("doctor") ? "doctor" : "other" },
        make("span", { class: "speaker" }, turn.speaker || "–"), make("p", {}, turn.text)))));
    box.scrollTop = 0;
  }

  function mark(path) {
    const turns = (current().evidence[path] || []).map(String);
    let first = null;
    for (const turn of by("talk").querySelectorAll("li")) {
      const marked = turns.includes(turn.id.slice(5));
      turn.classList.toggle("marked", marked);
      if (marked) first ||= turn;
    }
    const box = by("talk");
    if (first && box.scrollHeight > box.clientHeight) box.scrollTop = first.offsetTop - box.offsetTop - 24;
  }

  function setVerdict(path, verdict) {
    const one = here();
    one.verdicts[path] = verdict;
    if (!itemsField(path)) {
      if (verdict === RIGHT) delete one.corrections[path];
      // Nobody said it: the record should be silent.
      else if (verdict === NOT_SAID && kindOf(path) === "text") one.corrections[path] ??= "";
    }
    drawCorrection(path);
    keep();
  }

  function verdictBox(path) {
    const name = `verdict ${path}`;
    return make("div", { class: "verdicts", role: "radiogroup", "aria-label": words(path) }, ...data.verdicts.map((verdict) =>
      make("label", { class: verdict.replace(" ", "-") },
        make("input", { type: "radio", name, value: verdict, checked: here().verdicts[path] === verdict,
          onchange: () => setVerdict(path, verdict) }),
        make("span", {}, verdict))));
  }

  const fieldBox = (path) => by("record").querySelector(`[data-path="${CSS.escape(path)}"]`);

  function drawCorrection(path) {
    const box = fieldBox(path)?.querySelector(".correction");
    if (!box || itemsField(path)) return;
    const { verdicts, corrections } = here();
    const wanted = current().record ? verdicts[path] && verdicts[path] !== RIGHT : true;
    if (!wanted) box.replaceChildren();
    else if (!box.firstChild) box.append(input(path, corrections[path] ?? asText(leafOf(shown(current()), path)), (text) => {
      here().corrections[path] = text;
      keep();
    }));
    else if (verdicts[path] === NOT_SAID && corrections[path] === "") box.querySelector("input, textarea").value = "";
  }

  function input(path, text, onText, label = "should be") {
    const many = kindOf(path) === "list";
    const hint = many ? "one entry a line; empty: nothing was said" : `${data.expected[path]}; empty: ${data.not_provided}`;
    const box = make(many ? "textarea" : "input", { placeholder: hint, title: hint, spellcheck: "false", "aria-label": `${words(path)} ${label}`,
      onfocus: () => mark(path), oninput: (event) => onText(event.target.value), ...(many ? { rows: 3 } : { autocomplete: "off" }) });
    box.value = text;
    return make("label", { class: "should" }, make("span", {}, label), box);
  }

  function fieldRow(path, name) {
    const verdicts = current().record ? [value(leafOf(shown(current()), path)), verdictBox(path)] : [];
    return make("div", { class: "field", "data-path": path, onfocusin: () => mark(path) },
      make("div", { class: "name" }, title(name)), ...verdicts, make("div", { class: "correction" }));
  }

  function itemsEditor(field) {
    const editor = make("div", { class: "items" });
    const draw = () => {
      const given = here().corrections[field.name];
      editor.replaceChildren(...(given || []).map((item, place) => make("div", { class: "item" },
        ...field.fields.map((member) => {
          const path = `${field.name}[].${member.name}`;
          return input(path, item[member.name], (text) => { item[member.name] = text; changed(); }, title(member.name));
        }),
        make("button", { type: "button", onclick: () => { given.splice(place, 1); changed(); draw(); } }, "Remove"))),
      make("div", { class: "edit" }, given
        ? make("button", { type: "button", onclick: () => { given.push(blank(field)); changed(); draw(); } }, `Add to ${title(field.name)}`)
        : make("button", { type: "button", onclick: () => { start(); draw(); } }, `Correct ${title(field.name)}`),
      given ? make("button", { type: "button", onclick: () => { delete here().corrections[field.name]; keep(); draw(); } }, "Undo corrections") : ""));
    };
    const blank = (of) => Object.fromEntries(of.fields.map((member) => [member.name, ""]));
    const start = () => {
      const items = shown(current())[field.name].map((item) =>
        Object.fromEntries(Object.entries(item).map(([name, said]) => [name, asText(said)])));
      here().corrections[field.name] = items.length ? items : [blank(field)];
    };
    // What is corrected was not right.
    const changed = () => {
      const record = review.corrected(current(), here());
      for (const member of current().record ? field.fields : []) {
        const path = `${field.name}[].${member.name}`;
        if (review.differs(record, shown(current()), path) && [undefined, "", RIGHT].includes(here().verdicts[path])) {
          here().verdicts[path] = WRONG;
          const radio = fieldBox(path).querySelector(`input[value="${WRONG}"]`);
          radio.checked = true;
        }
      }
      keep();
    };
    draw();
    return editor;
  }

  function record() {
    const one = current();
    const box = by("record");
    const groups = data.fields.map((field) => {
      if (field.kind === "group") return [field.name, ...field.fields.map((member) => fieldRow(`${field.name}.${member.name}`, member.name))];
      if (field.kind !== "items") return ["", fieldRow(field.name, field.name)];
      const rows = one.record ? field.fields.map((member) => fieldRow(`${field.name}[].${member.name}`, member.name)) : [];
      const items = shown(one)[field.name].map((item) => make("li", {}, value(field.fields.map((member) => item[member.name]))));
      const list = items.length > 1 ? make("ol", { class: "whole" }, ...items) : "";
      return [field.name, list, ...rows, itemsEditor(field)];
    });
    const none = one.record ? "" : make("div", { class: "none" },
      make("p", {}, "The teacher gave no record that could be read. Write the one that the conversation supports, or say that there is nothing to write."),
      one.raw_text ? make("pre", {}, one.raw_text) : "",
      make("label", {}, make("input", { type: "checkbox", checked: here().whole === WRONG,
        onchange: (event) => { here().whole = event.target.checked ? WRONG : ""; keep(); } }), " no record can be written"));
    const comment = make("textarea", { id: "comment", rows: 2, oninput: (event) => { here().comment = event.target.value; keep(); } });
    comment.value = here().comment;
    box.replaceChildren(
      make("div", { class: "row" }, make("h1", {}, "Row ", make("code", {}, one.sample_id)),
        one.outcome ? make("span", { class: "outcome" }, one.outcome) : "",
        one.record ? make("button", { type: "button", id: "rest", title: "a", onclick: rest }, "All others are right") : ""),
      none,
      ...groups.map(([name, ...rows]) => make("section", { class: "group", "aria-label": title(name) }, name ? make("h2", {}, title(name)) : "", ...rows)),
      make("label", { class: "comment" }, "Comment", comment),
      make("p", { id: "left", class: "left", role: "status", hidden: true }));
    data.leaves.forEach(drawCorrection);
  }

  function show(place) {
    row = Math.min(Math.max(place, 0), data.rows.length - 1);
    by("number").textContent = row + 1;
    by("back").disabled = row === 0;
    by("forward").disabled = row === data.rows.length - 1;
    talk();
    record();
    keep();
    window.scrollTo(0, 0);
  }

  function rest() {
    for (const path of data.leaves) if (!here().verdicts[path]) here().verdicts[path] = RIGHT;
    record();
    keep();
    by("rest").focus();
  }

  function nextOpen() {
    const order = [...data.rows.keys()].map((step) => (row + 1 + step) % data.rows.length);
    const open = order.find((place) => !isDone(data.rows[place]));
    if (open === undefined) by("said").textContent = "All rows are judged. Save the file.";
    else show(open);
  }

  function focusField(step, from = document.activeElement) {
    const boxes = [...by("record").querySelectorAll(".field")];
    const place = boxes.indexOf(from.closest?.(".field"));
    const next = boxes[place === -1 ? (step > 0 ? 0 : boxes.length - 1) : place + step];
    (next?.querySelector("input:checked") || next?.querySelector("input, textarea"))?.focus();
  }

  function save() {
    if (!state.reviewer.trim()) {
      by("said").textContent = "Write your name first.";
      by("reviewer").focus();
      return;
    }
    const touched = data.rows.filter((one) => review.isTouched(filled(one)));
    const text = touched.map((one) => `${JSON.stringify(review.line(one, filled(one), state.reviewer.trim()))}\n`).join("");
    const url = URL.createObjectURL(new Blob([text], { type: "application/jsonl" }));
    const name = state.reviewer.trim().toLowerCase().replace(/[^a-z0-9]+/g, "-") || "reviewer";
    make("a", { href: url, download: `${data.review}-${name}.jsonl` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
    const partly = touched.filter((one) => uncorrected(one).length).length;
    by("said").textContent = `Saved ${touched.length} rows${partly ? `, ${partly} of them not corrected in all fields` : ""}.`;
  }

  async function load(file) {
    try {
      const found = review.loaded(await file.text());
      const name = state.reviewer.trim();
      if (name && found.reviewer && name !== found.reviewer) throw new Error(`Nothing was loaded: the file is ${found.reviewer}'s, and you are ${name}.`);
      const lost = data.rows.filter((one) => found.rows[one.sample_id] && review.isTouched(filled(one)) &&
        !review.isSame(filled(one), found.rows[one.sample_id])).length;
      if (lost && !window.confirm(`${lost} rows are filled in otherwise here. Replace them with those of the file?`)) return;
      state.reviewer = by("reviewer").value = name || found.reviewer;
      Object.assign(state.rows, found.rows);
      show(row);
      by("said").textContent = `Loaded ${Object.keys(found.rows).length} rows.`;
    } catch (error) {
      by("said").textContent = error.message;
    }
  }

  // --- keys and buttons ---

  by("reviewer").value = state.reviewer;
  by("reviewer").addEventListener("input", (event) => { state.reviewer = event.target.value; keep(); });
  by("back").addEventListener("click", () => show(row - 1));
  by("forward").addEventListener("click", () => show(row + 1));
  by("open").addEventListener("click", nextOpen);
  by("save").addEventListener("click", save);
  by("load").addEventListener("click", () => by("file").click());
  by("file").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    if (file) await load(file);
    // The same file may be chosen again.
    event.target.value = "";
  });
  by("clear").addEventListener("click", () => {
    if (!window.confirm("Forget all that was filled in here? Files that were saved stay.")) return;
    state = { reviewer: "", rows: {} };
    localStorage.removeItem(key);
    by("reviewer").value = "";
    show(0);
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("textarea, input:not([type=radio]):not([type=checkbox])");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const field = document.activeElement.closest?.(".field");
    const verdict = data.verdicts[Number(event.key) - 1];
    const actions = { j: () => focusField(1), k: () => focusField(-1), n: () => show(row + 1), p: () => show(row - 1), a: () => by("rest")?.click() };
    if (verdict && field && current().record) {
      event.preventDefault();
      field.querySelector(`input[value="${verdict}"]`).click();
      if (verdict === RIGHT) focusField(1, field);
      else (field.querySelector(".correction input, .correction textarea") || field.querySelector("input:checked")).focus();
    } else if (actions[event.key]) {
      event.preventDefault();
      actions[event.key]();
    }
  });
  show(0);
})();
