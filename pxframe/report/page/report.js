// Sorts, filters and copies the table of results. Without it the page lacks just that.
"use strict";
(() => {
  // On paper nothing can be opened.
  addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details")) part.open = true;
  });

  const table = document.getElementById("results");
  if (!table) return; // no run is finished
  const heads = Array.from(table.tHead.rows[0].cells);
  const body = table.tBodies[0];
  const filter = document.getElementById("filter");
  const status = document.getElementById("status");
  const all = Array.from(body.rows);

  const say = (text) => { status.textContent = text; };
  const text = (row, column) => row.cells[column].textContent.trim();
  // As a number is written for people: with a true minus sign, and commas between thousands.
  const number = (shown) => shown === "" ? NaN : Number(shown.replace("−", "-").replaceAll(",", ""));

  function compare(column, numeric, sign) {
    return (one, other) => {
      const [a, b] = [text(one, column), text(other, column)];
      if (!numeric) return sign * a.localeCompare(b, "en", { numeric: true });
      const [x, y] = [number(a), number(b)];
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y); // no value: always last
      return sign * (x - y);
    };
  }

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const sorted = Array.from(body.rows).sort(compare(column, "number" in head.dataset, down ? -1 : 1));
      body.append(...sorted);
      say(`Sorted by ${button.textContent}, ${down ? "descending" : "ascending"}.`);
    });
  });

  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of all) {
      const cells = Array.from(row.cells, (cell) => cell.textContent.toLowerCase()).join(" ");
      row.hidden = !words.every((word) => cells.includes(word));
      shown += !row.hidden;
    }
    say(words.length ? `${shown} of ${all.length} rows shown.` : "");
  });

  const quoted = (value) => /[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;

  function csv(rows) {
    const lines = [heads.map((head) => quoted(head.textContent.trim()))];
    for (const row of rows) {
      lines.push(heads.map((head, column) => {
        const shown = text(row, column);
        return quoted("number" in head.dataset && shown !== "" ? String(number(shown)) : shown);
      }));
    }
    return lines.map((line) => line.join(",")).join("\n") + "\n";
  }

  async function copied(value) {
    try {
      await navigator.clipboard.writeText(value);
      return true;
    } catch { // an older browser, or a page from a disk that may not use the clipboard
      const area = document.createElement("textarea");
      area.value = value;
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  }

  document.getElementById("copy").addEventListener("click", async (event) => {
    const rows = Array.from(body.rows).filter((row) => !row.hidden);
    const done = await copied(csv(rows));
    event.target.focus();
    say(done ? `Copied ${rows.length} rows as CSV.` : "The browser does not allow copying; results.csv has every run.");
  });

  document.getElementById("controls").hidden = false;
})();
