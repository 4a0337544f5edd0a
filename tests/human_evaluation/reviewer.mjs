// A reviewer at a real browser: opens a page by its file, fills it in, saves, and reads it back.
//
//   node reviewer.mjs < plan.json > what_happened.json
//
// The plan: {browser: "chrome" | "firefox", program, page, downloads, opinions: {item id: {choice} |
// {ratings} | {skip}}, comment, screenshots?: folder}. Nothing here knows which model wrote what.
// Without opinions the page is only looked at.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import puppeteer from "puppeteer-core";

const plan = JSON.parse(readFileSync(0, "utf8"));
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const address = pathToFileURL(plan.page).href;
const seen = { violations: [], requests: [], errors: [], overflow: [], items: 0 };

// A browser of its own, which has kept nothing.
const launch = (scheme) => puppeteer.launch({
  browser: plan.browser,
  executablePath: plan.program,
  headless: true,
  args: plan.browser === "chrome" ? ["--no-sandbox"] : [],
  extraPrefsFirefox: {
    "layout.css.prefers-color-scheme.content-override": scheme === "dark" ? 0 : 1,
    "browser.download.folderList": 2,
    "browser.download.dir": plan.downloads,
  },
  downloadBehavior: plan.downloads && { policy: "allow", downloadPath: plan.downloads },
});

async function newPage(browser, width, scheme = "light") {
  const page = await browser.newPage();
  page.on("request", (request) => seen.requests.push(request.url()));
  page.on("pageerror", (error) => seen.errors.push(String(error)));
  page.on("console", (line) => { if (line.type() === "error") seen.errors.push(line.text()); });
  await page.setViewport({ width, height: 900 });
  if (plan.browser === "chrome")
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.goto(address);
  return page;
}

// Violations of the accessibility rules, and whether the page is wider than its window.
async function look(page, where) {
  await page.evaluate(axe);
  const found = await page.evaluate(async () => (await globalThis.axe.run(document, {
    runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
  })).violations.map((each) => `${each.id}: ${each.nodes.map((node) => node.html).join(" ; ")}`));
  seen.violations.push(...found.map((each) => `${where}: ${each}`));
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  if (wide > 0) seen.overflow.push(`${where}: ${wide} px`);
  if (plan.screenshots)
    await page.screenshot({ path: `${plan.screenshots}/${plan.browser}-${where}.png` });
}

const title = (page) => page.$eval("#item-title", (heading) => heading.textContent);
const visible = (page, selector) => page.$eval(selector, (element) => element.checkVisibility());

async function agree(page) {
  await page.focus("#agree");
  await page.keyboard.press(" ");
  await page.focus("#begin");
  await page.keyboard.press("Enter");
}

// One item, by keys or by mouse in turn.
async function judge(page, item, byKeys) {
  const opinion = plan.opinions[item.id];
  if (await visible(page, "#gate")) {
    if (await page.$eval("#prompt", (box) => box.textContent)) seen.errors.push("shown before it was opened");
    await page.click(opinion.skip ? "#pass" : "#open");
    if (opinion.skip) return;
  } else if (opinion.skip) {
    await page.click("#skip");
    return;
  }
  if (item.kind === "pair") {
    if (byKeys) await page.keyboard.press({ a: "a", b: "b", equal: "e" }[opinion.choice]);
    else await page.click(`input[name=choice][value=${opinion.choice}]`);
  } else {
    for (const [question, value] of Object.entries(opinion.ratings))
      if (byKeys) await page.keyboard.press(String(value));
      else await page.click(`input[name=${question}][value="${value}"]`);
  }
  if (seen.items === 0) await page.type("#comment", plan.comment);
  if (byKeys && seen.items > 0) await page.keyboard.press("n");
  else await page.click("#next");
  seen.items += 1;
}

async function onlyLook() {
  for (const [width, scheme] of [[1400, "light"], [400, "dark"]])
    await look(await newPage(browser, width, scheme), `report-${width}-${scheme}`);
}

async function fillIn() {
  let page = await newPage(browser, 1400);
  await look(page, "start-1400");
  const items = await page.$eval("#data", (element) => JSON.parse(element.textContent).items);
  await agree(page);
  const looked = new Set();
  for (const [index, item] of items.entries()) {
    if (await title(page) !== `Item ${index + 1} of ${items.length}`) throw new Error(`not at item ${index + 1}`);
    const kind = (await visible(page, "#gate")) ? "warning" : item.kind;
    if (!looked.has(kind)) {
      looked.add(kind);
      await look(page, `${kind}-1400`);
      await page.setViewport({ width: 400, height: 900 });
      await look(page, `${kind}-400`);
      await page.setViewport({ width: 1400, height: 900 });
    }
    await judge(page, item, index % 2 === 1);
    if (index === 4) {
      // The browser was closed in the middle: what was entered is still there.
      await page.close();
      page = await newPage(browser, 1400);
      await page.click("#begin");
    }
  }
  await look(page, "end-1400");
  seen.ran = await page.evaluate(() => globalThis.pwned ?? null);
  await page.click("#export");
  for (let i = 0; i < 100 && !readdirSync(plan.downloads).some((name) => name.endsWith(".json")); i++) await sleep(100);
  const name = readdirSync(plan.downloads).find((each) => each.endsWith(".json"));
  if (!name) throw new Error("no file was saved");
  seen.file = `${plan.downloads}/${name}`;
  for (let i = 0; i < 50 && existsSync(`${seen.file}.part`); i++) await sleep(100);
  // Somewhere else, with nothing kept: the file brings everything back.
  await browser.close();
  browser = await launch("dark");
  const other = await newPage(browser, 400, "dark");
  await look(other, "start-400-dark");
  await (await other.$("#start .import")).uploadFile(seen.file);
  await other.waitForFunction(() => !document.getElementById("end").hidden, { timeout: 5000 });
  seen.restored = await other.$eval("#progress", (bar) => [bar.value, bar.max]);
  await look(other, "end-400-dark");
  await other.click("#back");
  await look(other, "item-400-dark");
}

let browser = await launch("light");
try {
  await (plan.opinions ? fillIn() : onlyLook());
} finally {
  await browser.close();
}
console.log(JSON.stringify(seen));
