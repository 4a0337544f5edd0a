"use strict";
// The reviewer's page: shows one item after the other, keeps what is entered, writes it to a file.
(() => {
  const FORMAT = "ccai-expert-review", VERSION = 1;
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const items = data.items;
  const place = `${FORMAT}:${data.package}:${data.reviewer}`;
  const known = new Set(items.map((item) => item.id));
  let state = { consent: null, started: null, at: 0, shortcuts: true, answers: {} };
  let since = null;

  // Kept in the browser

  const now = () => new Date().toISOString();

  function notice(text) {
    byId("notice").textContent = text;
    byId("notice").hidden = !text;
  }

  function keep() {
    try {
      localStorage.setItem(place, JSON.stringify(state));
      byId("saved").textContent = `Kept in this browser, ${new Date().toLocaleTimeString()}.`;
      notice("");
    } catch (error) {
      byId("saved").textContent = "Not kept in this browser.";
      notice("This browser keeps nothing for this page: save your answers as a file before you close it.");
    }
  }

  function restore() {
    try {
      const kept = localStorage.getItem(place);
      if (kept) state = { ...state, ...JSON.parse(kept) };
    } catch (error) {
      notice("What this browser kept for this page cannot be read. Read a saved file if you have one.");
    }
  }

  // Answers

  function answerOf(item) {
    return (state.answers[item.id] ??= {
      choice: null, ratings: {}, comment: "", skipped: false, opened: !item.harmful, seconds: 0, at: now(),
    });
  }

  function isDone(item) {
    const answer = state.answers[item.id];
    if (!answer) return false;
    if (answer.skipped) return true;
    return item.kind === "pair"
      ? answer.choice !== null
      : data.questions.every((question) => question in answer.ratings);
  }

  function change(item, values) {
    Object.assign(answerOf(item), values, { at: now() });
    keep();
    showState(item);
  }

  // Time counts while the item is in view.
  function stopClock() {
    const item = items[state.at];
    if (since !== null && item) answerOf(item).seconds += Math.round((Date.now() - since) / 1000);
    since = null;
  }

  // Views

  function view(name) {
    for (const section of ["start", "item", "end"]) byId(section).hidden = section !== name;
    byId(`${name}-title`).focus();
    scrollTo(0, 0);
  }

  function showProgress() {
    const done = items.filter(isDone).length;
    byId("progress").value = done;
    byId("counted").textContent = `${done} of ${items.length} items done`;
  }

  function showState(item) {
    const answer = answerOf(item);
    byId("state").textContent = answer.skipped
      ? "Skipped. Choose or rate something to take that back."
      : isDone(item) ? "Done." : "";
    showProgress();
  }

  function showItem(index) {
    stopClock();
    state.at = index;
    const item = items[index], answer = answerOf(item);
    const pair = item.kind === "pair", opened = answer.opened;
    byId("item-title").textContent = `Item ${index + 1} of ${items.length}`;
    byId("gate").hidden = opened;
    byId("content").hidden = !opened;
    byId("skip").hidden = !opened;
    // What is behind the warning is not in the page before it is opened.
    byId("prompt").textContent = opened ? item.prompt : "";
    byId("first").textContent = opened ? item.answers[0] : "";
    byId("second").textContent = opened && pair ? item.answers[1] : "";
    byId("first-title").textContent = pair ? "Answer A" : "Answer";
    byId("second-box").hidden = !pair;
    byId("choice").hidden = !pair;
    byId("ratings").hidden = pair;
    for (const radio of byId("form").querySelectorAll("input[type=radio]")) {
      const given = radio.name === "choice" ? answer.choice : answer.ratings[radio.name];
      radio.checked = given !== undefined && given !== null && String(given) === radio.value;
    }
    byId("comment").value = answer.comment;
    byId("previous").disabled = index === 0;
    byId("next").textContent = index === items.length - 1 ? "To the end" : "Next";
    byId("finish").hidden = index === items.length - 1;
    showState(item);
    keep();
    view("item");
    since = Date.now();
  }

  function showEnd() {
    stopClock();
    keep();
    const open = items.flatMap((item, index) => (isDone(item) ? [] : [index]));
    const skipped = items.filter((item) => state.answers[item.id]?.skipped).length;
    byId("summary").textContent = `${items.length - open.length} of ${items.length} items are done`
      + `${skipped ? `, ${skipped} of them skipped` : ""}.`;
    byId("open-items").hidden = open.length === 0;
    byId("open-list").replaceChildren(...open.map((index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = `Item ${index + 1}`;
      button.addEventListener("click", () => showItem(index));
      const entry = document.createElement("li");
      entry.append(button);
      return entry;
    }));
    showProgress();
    view("end");
  }

  const next = () => (state.at + 1 < items.length ? showItem(state.at + 1) : showEnd());
  const previous = () => { if (state.at > 0) showItem(state.at - 1); };

  function begin() {
    state.consent ??= now();
    state.started ??= now();
    showItem(Math.min(state.at, items.length - 1));
  }

  function skip() {
    change(items[state.at], { skipped: true });
    next();
  }

  function enter(radio) {
    const item = items[state.at], answer = answerOf(item);
    if (radio.name === "choice") change(item, { choice: radio.value, skipped: false });
    else change(item, { ratings: { ...answer.ratings, [radio.name]: Number(radio.value) }, skipped: false });
  }

  // Files

  // The same text as Python's json.dumps(value, sort_keys=True, ensure_ascii=False, separators).
  function canonical(value) {
    if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
    if (value === null || typeof value !== "object") return JSON.stringify(value);
    const entries = Object.keys(value).sort().map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`);
    return `{${entries.join(",")}}`;
  }

  // Halves of characters cannot be written to a file.
  const whole = (text) => new TextDecoder().decode(new TextEncoder().encode(text));

  async function signature(content) {
    const bytes = (text) => new TextEncoder().encode(text);
    const key = await crypto.subtle.importKey(
      "raw", bytes(data.token), { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
    const signed = new Uint8Array(await crypto.subtle.sign("HMAC", key, bytes(canonical(content))));
    return Array.from(signed, (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  async function exportFile() {
    const content = {
      format: FORMAT, version: VERSION, package: data.package, reviewer: data.reviewer,
      consent: state.consent, started: state.started, exported: now(),
      complete: items.every(isDone),
      answers: items.filter((item) => item.id in state.answers)
        .map((item) => ({ id: item.id, ...state.answers[item.id] })),
    };
    const text = JSON.stringify({ ...content, signature: await signature(content) }, null, 1);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = `expert-review-${data.package.slice(0, 6)}-${data.reviewer}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    byId("exported").textContent = `Saved as ${link.download}, where this browser keeps downloads.`;
  }

  async function importFile(input) {
    const [file] = input.files;
    if (!file) return;
    try {
      const { signature: given, ...content } = JSON.parse(await file.text());
      if (content.format !== FORMAT || content.package !== data.package || content.reviewer !== data.reviewer)
        throw new Error("it was not saved from this page");
      if (given !== await signature(content)) throw new Error("it was changed after it was saved");
      for (const { id, ...answer } of content.answers)
        if (known.has(id) && !(state.answers[id]?.at > answer.at)) state.answers[id] = answer;
      state.consent ??= content.consent;
      state.started ??= content.started;
      keep();
      showEnd();
      byId("exported").textContent = `Read ${file.name}; where both had an answer, the newer one stays.`;
    } catch (error) {
      notice(`${file.name} cannot be read: ${error.message}.`);
    }
    input.value = "";
  }

  // Keys

  function onKey(event) {
    const typing = event.target.matches("textarea, input[type=file]");
    if (!state.shortcuts || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (byId("item").hidden) return;
    const key = event.key.toLowerCase(), item = items[state.at], answer = answerOf(item);
    if (key === "n") next();
    else if (key === "p") previous();
    else if (answer.opened && item.kind === "pair" && "aeb".includes(key))
      press("choice", { a: "a", e: "equal", b: "b" }[key]);
    else if (answer.opened && item.kind === "rating" && /^[1-5]$/.test(key)) {
      const focused = event.target.closest("[data-question]")?.dataset.question;
      const question = focused ?? data.questions.find((each) => !(each in answer.ratings));
      if (question) press(question, key);
    } else return;
    event.preventDefault();
  }

  function press(name, value) {
    const radio = byId("form").querySelector(`input[name="${name}"][value="${value}"]`);
    radio.checked = true;
    radio.scrollIntoView({ block: "nearest" });
    enter(radio);
  }

  byId("agree").addEventListener("change", (event) => { byId("begin").disabled = !event.target.checked; });
  byId("begin").addEventListener("click", begin);
  byId("open").addEventListener("click", () => { change(items[state.at], { opened: true }); showItem(state.at); });
  byId("pass").addEventListener("click", skip);
  byId("skip").addEventListener("click", skip);
  byId("previous").addEventListener("click", previous);
  byId("next").addEventListener("click", next);
  byId("finish").addEventListener("click", showEnd);
  byId("back").addEventListener("click", begin);
  byId("export").addEventListener("click", () => {
    stopClock();
    exportFile().catch((error) => notice(`The file cannot be made: ${error.message}.`));
  });
  byId("form").addEventListener("submit", (event) => event.preventDefault());
  byId("form").addEventListener("change", (event) => { if (event.target.type === "radio") enter(event.target); });
  byId("comment").addEventListener("input", (event) => change(items[state.at], { comment: whole(event.target.value) }));
  byId("shortcuts").addEventListener("change", (event) => { state.shortcuts = event.target.checked; keep(); });
  for (const input of document.querySelectorAll(".import"))
    input.addEventListener("change", () => importFile(input));
  document.addEventListener("keydown", onKey);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { stopClock(); keep(); }
    else if (!byId("item").hidden) since = Date.now();
  });

  restore();
  byId("shortcuts").checked = state.shortcuts;
  showProgress();
  if (state.consent) {
    byId("agree").checked = true;
    byId("begin").disabled = false;
    byId("begin").textContent = "Go on";
  }
})();
