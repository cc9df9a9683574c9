// Works the page's table as a reader would, and tells the page around this one what is shown then.
"use strict";
let alerts = 0;
window.alert = () => { alerts += 1; };
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const column = (index) => [...document.querySelectorAll("#table tbody tr")].map((row) => +row.cells[index].textContent);
const filterBy = (text) => {
  const filter = document.getElementById("filter");
  filter.value = text;
  filter.dispatchEvent(new Event("input"));
  return column(0);
};
const textBelow = (head) => {  // of a section, up to the next one
  let text = "";
  for (let part = head.nextElementSibling; part && part.tagName !== "H2"; part = part.nextElementSibling) text += part.textContent;
  return text.replace(/\s+/g, " ").trim();
};
(async () => {
  while (!document.body.dataset.ready) await pause(50);
  const places = [...document.querySelectorAll("[data-figure]")];
  for (let waited = 0; waited < 200 && !places.every((place) => place.querySelector(".main-svg")); waited += 1) await pause(100);
  const hours = [...document.querySelectorAll("#table th")].find((head) => head.textContent.endsWith("-hours"));
  hours.click();
  const ascending = column(hours.cellIndex);
  hours.click();
  const descending = column(hours.cellIndex);
  const filtered = filterBy("state=fail").sort((a, b) => a - b);
  const belowThree = filterBy("number<3").sort((a, b) => a - b);
  let copied = "";
  Object.defineProperty(navigator, "clipboard", { value: { writeText: async (text) => { copied = text; } } });
  document.querySelector("[data-copy]").click();
  await pause(50);
  window.parent.postMessage(JSON.stringify({
    figures: places.length,
    drawn: places.filter((place) => place.querySelector(".main-svg")).length,
    sections: Object.fromEntries([...document.querySelectorAll("h2")].map((head) => [head.id, textBelow(head)])),
    broken: [...document.querySelectorAll(".note")].map((note) => note.textContent).filter((text) => text.includes("not be drawn")),
    cut: places.filter((place) => place.querySelector(".main-svg")?.getBoundingClientRect().width > place.clientWidth + 1)
      .map((place) => place.dataset.figure),
    too_wide: document.documentElement.scrollWidth - window.innerWidth,
    errors: window.errors, ascending, descending, filtered, below_three: belowThree, alerts, copied,
  }), "*");
})();
