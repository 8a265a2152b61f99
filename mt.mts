import { loadMails } from "./lib/core/mail.ts";
const c0 = process.cpuUsage().user;
const { mails } = loadMails();
console.log(mails.length, mails.filter((m) => m.spam).length, (process.cpuUsage().user - c0) / 1e6);
for (const i of [0, 700, 3000, 4200, 4300, 5000, 5500]) console.log(mails[i]?.id, mails[i]?.spam, mails[i]?.text.slice(0, 160));
const { loadSentenceEncoder, encode } = await import("./lib/core/sentence-encoder.ts");
const { ready, tf } = await import("./lib/core/tensor.ts");
await ready();
const enc = loadSentenceEncoder();
const c1 = process.cpuUsage().user;
const ids = mails.filter((_, i) => i % 4 === 0).map((m) => enc.tokenizer.encode(m.text.slice(0, 600)));
console.log("tokens", (process.cpuUsage().user - c1) / 1e6, ids.filter((x) => x.length >= 48).length / ids.length, ids.filter((x) => x.length >= 64).length / ids.length);
const some = ids.filter((x) => x.length >= 48).slice(0, 256).map((x) => x.slice(0, 48));
for (const B of [32, 256]) { const c2 = process.cpuUsage().user;
for (let i = 0; i < 256; i += B) { const t = tf.tensor2d(some.slice(i, i + B), [B, 48], "int32"); encode(enc.params, t).dataSync(); }
console.log("encode 256", B, (process.cpuUsage().user - c2) / 1e6);}
