// Chromium, and what is measured of a page.

import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import { type Browser, chromium, type Locator, type Page } from "playwright-core";

const path = [
  process.env["CHROMIUM"],
  ...(process.env["PATH"] ?? "")
    .split(delimiter)
    .flatMap((path) =>
      ["chromium", "chromium-browser", "google-chrome"].map((name) => join(path, name)),
    ),
].find((path) => path !== undefined && existsSync(path));

/** Why tests with a browser are left out. */
export const skip =
  path === undefined && "no Chromium here: install it, or set CHROMIUM to its path";

export function launch(): Promise<Browser> {
  return chromium.launch({ executablePath: path!, args: ["--no-sandbox"] });
}

/** The card whose first key this is. */
export function card(page: Page, key: string): Locator {
  return page.locator(`[id="card-${key}"]`);
}

/** How much of its place each bar fills; NaN where there is no place. */
export function widths(of: Locator): Promise<number[]> {
  return of.locator(".bar").evaluateAll((bars) =>
    bars.map((bar) => {
      const filled = bar.firstElementChild!.getBoundingClientRect().width;
      return Math.round((filled / bar.getBoundingClientRect().width) * 1000) / 1000;
    }),
  );
}

/** The texts of a page, each with its contrast to what is behind it. */
export function contrasts(page: Page): Promise<[text: string, contrast: number][]> {
  return page.evaluate(() => {
    const rgb = (color: string) => (color.match(/[\d.]+/g) ?? []).map(Number);
    const luminance = (color: number[]) => {
      const [red, green, blue] = color
        .slice(0, 3)
        .map((part) => part / 255)
        .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
      return 0.2126 * red! + 0.7152 * green! + 0.0722 * blue!;
    };
    const found: [string, number][] = [];
    for (const element of document.querySelectorAll<HTMLElement>("body *")) {
      const text = [...element.childNodes]
        .filter((node) => node.nodeType === Node.TEXT_NODE)
        .map((node) => node.textContent!.trim())
        .join("");
      if (text === "" || element.getClientRects().length === 0 || element.closest("script"))
        continue;
      let behind = [0, 0, 0, 0];
      let opacity = 1;
      for (let at: Element | null = element; at !== null; at = at.parentElement) {
        const style = getComputedStyle(at);
        opacity *= Number(style.opacity);
        const color = rgb(style.backgroundColor);
        if (behind[3] === 0 && color[3] !== 0) behind = color;
      }
      const front = rgb(getComputedStyle(element).color);
      const mixed = front.map((part, place) => part * opacity + behind[place]! * (1 - opacity));
      const [dark, light] = [luminance(mixed), luminance(behind)].sort((one, other) => one - other);
      found.push([text, (light! + 0.05) / (dark! + 0.05)]);
    }
    return found;
  });
}
