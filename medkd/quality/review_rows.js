"use strict";
// What was filled in for rows of a review, apart from how it is shown: the record it makes, whether it is whole, its line in a
// saved file, and back from there. `filled` is { verdicts, corrections, comment, whole } of one row.
const reviewRows = (data) => {
  const [RIGHT, WRONG] = data.verdicts;
  const blank = () => ({ verdicts: {}, corrections: {}, comment: "", whole: "" });
  const shown = (one) => one.record || data.empty;
  const sayable = (text) => text.trim() || data.not_provided;
  const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);
  const itemsField = (path) => (path.includes("[].") ? path.slice(0, path.indexOf("[].")) : "");
  const leafOf = (record, path) => {
    const [head, member] = path.split(/\[\]\.|\./);
    if (itemsField(path)) return record[head].map((item) => item[member]);
    return member === undefined ? record[head] : record[head][member];
  };
  const plain = (value) => JSON.stringify(Array.isArray(value) ? value.map(plain).sort() : value.trim().toLowerCase());
  const differs = (one, other, path) => plain(leafOf(one, path)) !== plain(leafOf(other, path));
  const kindOf = (path) => {
    const [head, member] = path.split(/\[\]\.|\./);
    const field = data.fields.find((one) => one.name === head);
    return member === undefined ? field.kind : field.fields.find((one) => one.name === member).kind;
  };
  const asValue = (path, text) => (kindOf(path) === "list" ? lines(text) : sayable(text));
  const asText = (value) => (Array.isArray(value) ? value.join("\n") : value === data.not_provided ? "" : value);

  function corrected(one, { corrections }) {
    if (!Object.keys(corrections).length) return null;
    const record = structuredClone(shown(one));
    for (const [path, value] of Object.entries(corrections)) {
      const [head, member] = path.split(".");
      if (Array.isArray(value)) {
        const items = value.map((item) =>
          Object.fromEntries(Object.entries(item).map(([name, text]) => [name, asValue(`${path}[].${name}`, text)])));
        record[path] = items.filter((item) => Object.values(item).some((said) => said.length && said !== data.not_provided));
      } else if (member === undefined) record[head] = asValue(path, value);
      else record[head][member] = asValue(path, value);
    }
    return record;
  }

  // A field that is not right and whose correction says the same is not corrected yet.
  function uncorrected(one, filled) {
    const record = corrected(one, filled);
    return data.leaves.filter((path) => filled.verdicts[path] && filled.verdicts[path] !== RIGHT &&
      (!record || !differs(record, shown(one), path)));
  }

  const isDone = (one, { verdicts, corrections, whole }) =>
    (one.record ? data.leaves.every((path) => verdicts[path]) : Boolean(whole || Object.keys(corrections).length));

  const isTouched = ({ verdicts, corrections, comment, whole }) =>
    Boolean(Object.keys(verdicts).length || Object.keys(corrections).length || comment.trim() || whole);

  const isSame = (...both) => new Set(both.map(({ verdicts, corrections, comment, whole }) => JSON.stringify(
    [data.leaves.map((path) => verdicts[path] || ""), Object.entries(corrections).sort(), comment, whole]))).size === 1;

  // --- a saved file ---

  function line(one, filled, reviewer) {
    const { verdicts, corrections, comment, whole } = filled;
    const record = uncorrected(one, filled).length ? null : corrected(one, filled);
    return {
      review: data.review,
      sample_id: one.sample_id,
      verdicts: Object.fromEntries(data.leaves.map((path) => [path, verdicts[path] || ""])),
      whole: one.record ? "" : whole,
      corrected_record: record,
      // What is corrected only in part is for this form alone, which goes on from there when it loads the file.
      ...(record ? {} : { draft: corrections }),
      comment,
      reviewer,
    };
  }

  // What the form would hold if the record had been corrected to this one in it.
  function correctionsTo(record, one) {
    const found = {};
    for (const field of data.fields) {
      if (field.kind === "items") {
        if (JSON.stringify(record[field.name]) === JSON.stringify(shown(one)[field.name])) continue;
        found[field.name] = record[field.name].map((item) =>
          Object.fromEntries(field.fields.map(({ name }) => [name, asText(item[name])])));
        continue;
      }
      const paths = field.kind === "group" ? field.fields.map((member) => `${field.name}.${member.name}`) : [field.name];
      for (const path of paths) if (differs(record, shown(one), path)) found[path] = asText(leafOf(record, path));
    }
    return found;
  }

  function filledBy(given, one, refuse) {
    const filled = blank();
    if (one.record && given.whole === RIGHT) data.leaves.forEach((path) => { filled.verdicts[path] = RIGHT; });
    for (const [path, verdict] of Object.entries(given.verdicts || {})) {
      if (!data.leaves.includes(path) || !["", ...data.verdicts].includes(verdict)) refuse(`does not know the verdict of ${path}`);
      if (verdict) filled.verdicts[path] = verdict;
    }
    try {
      filled.corrections = given.corrected_record ? correctionsTo(given.corrected_record, one) : given.draft || {};
      corrected(one, filled);
    } catch {
      refuse("does not hold a record of these fields");
    }
    return { ...filled, comment: String(given.comment || ""), whole: given.whole === WRONG ? WRONG : "" };
  }

  // Reviewer and rows of a saved file's text; an Error says which of its lines is none of this review.
  function loaded(text) {
    const rows = {};
    let reviewer = "";
    text.replace(/^\ufeff/, "").split("\n").forEach((entry, place) => {
      if (!entry.trim()) return;
      const refuse = (why) => { throw new Error(`Nothing was loaded: line ${place + 1} ${why}.`); };
      let given = null;
      try {
        given = JSON.parse(entry);
      } catch {
        refuse("is not one that this form saves");
      }
      const one = given && data.rows.find((known) => known.sample_id === given.sample_id);
      if (!one || given.review !== data.review) refuse(`is of no row of review ${data.review}`);
      const who = String(given.reviewer || "").trim();
      if (reviewer && who && who !== reviewer) refuse(`is ${who}'s, those before it are ${reviewer}'s`);
      reviewer ||= who;
      rows[one.sample_id] = filledBy(given, one, refuse);
    });
    return { reviewer, rows };
  }

  return { blank, shown, itemsField, leafOf, differs, kindOf, asText, corrected, uncorrected, isDone, isTouched, isSame, line, loaded };
};
