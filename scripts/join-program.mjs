#!/usr/bin/env node
// Joins what the page opened first needs of the browser's program into one file for each piece: `first_PIECE.HASH.wasm`, the
// beginning of the program linked with the piece and all that it shares with others. One file packs a quarter better than ten:
// brotli knows in a part what it has seen in the others. The loader then fetches only what the first file lacks.
//   join-program.mjs FOLDER      the folder with the parts and their manifest
import { createHash } from "node:crypto";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import zlib from "node:zlib";

const folder = process.argv[2];
const files = readdirSync(folder);
// The newest: a build may leave those of the one before.
const one = (pattern) => {
  const found = files.filter((file) => pattern.test(file)).map((file) => path.join(folder, file));
  if (found.length === 0) throw new Error(`${folder} has no file like ${pattern}`);
  return found.sort((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs)[0];
};
// What rustc lets its code use; newer ones would be written as not every browser reads them.
const features = ["bulk-memory", "bulk-memory-opt", "call-indirect-overlong", "multivalue", "mutable-globals", "nontrapping-float-to-int", "reference-types", "sign-ext"];
const enabled = features.map((feature) => `--enable-${feature}`);
// As for the parts, see Cargo.toml: what the parts have in common is found only now.
const optimize = ["-Os", "--one-caller-inline-max-function-size=0", "--always-inline-max-function-size=0"];
const manifestFile = one(/^__wasm_split_manifest.*\.json$/);
const loaderFile = one(/^__wasm_split\..*\.js$/);
const beginning = one(/^ringfence\.([^.]+\.)?wasm$/);
const manifest = JSON.parse(readFileSync(manifestFile, "utf8"));

for (const file of files.filter((file) => file.startsWith("first_"))) rmSync(path.join(folder, file));
const scratch = mkdtempSync(path.join(tmpdir(), "join-program-"));
for (const [piece, parts] of Object.entries(manifest)) {
  const joined = path.join(scratch, `${piece}.wasm`);
  // Parts import from the beginning under this name.
  const inputs = [beginning, "__wasm_split", ...parts.flatMap((part) => [path.join(folder, `${part}.wasm`), part])];
  execFileSync("wasm-merge", [...inputs, "-o", joined, ...enabled], { stdio: "inherit" });
  execFileSync("wasm-opt", [...optimize, joined, "-o", joined, ...enabled], { stdio: "inherit" });
  const bytes = readFileSync(joined);
  const hash = createHash("sha256").update(bytes).digest("base64url").slice(0, 22);
  write(`first_${piece}.${hash}.wasm`, bytes);
}
rmSync(scratch, { recursive: true });

// The loader: what the first file holds is there already; which one it was stands in the page's root. A part that can't be had is
// told by the page itself, which offers to try again: no loader's word on the console, nor a rejection that nobody waits for when
// another part has failed first.
const prelude = `const there = new Set(${JSON.stringify(manifest)}[document.documentElement.dataset.first]);\n`;
let loader = readFileSync(loaderFile, "utf8");
if (!loader.includes(prelude)) {
  const fetching = /const src = fetch\(new URL\("\.\/([^"]+)\.wasm", import\.meta\.url\)\);/g;
  const parts = new Set(Object.values(manifest).flat());
  const patched = [...loader.matchAll(fetching)].filter(([, part]) => parts.has(part)).length;
  if (patched !== parts.size) throw new Error(`the loader fetches ${patched} of ${parts.size} parts as this script knows it`);
  loader = prelude + loader.replace(fetching, (whole, part) => `if (there.has(${JSON.stringify(part)})) return async () => {};\n    ${whole}\n    src.catch(() => {});`);
  const complaint = "console.error(e);\n            success = false;";
  if (loader.split(complaint).length !== 2) throw new Error("the loader complains elsewhere than this script knows");
  loader = loader.replace(complaint, `if (!(e instanceof TypeError)) ${complaint}`);
  write(path.basename(loaderFile), loader);
}

/** A file, and beside it the packed ones that the portal sends. */
function write(name, content) {
  const file = path.join(folder, name);
  const bytes = Buffer.from(content);
  const params = { [zlib.constants.BROTLI_PARAM_QUALITY]: 11, [zlib.constants.BROTLI_PARAM_LGWIN]: 24, [zlib.constants.BROTLI_PARAM_SIZE_HINT]: bytes.length };
  for (const [end, packed] of [["", bytes], [".br", zlib.brotliCompressSync(bytes, { params })], [".gz", zlib.gzipSync(bytes, { level: 9 })]]) {
    writeFileSync(`${file}${end}.new`, packed);
    renameSync(`${file}${end}.new`, `${file}${end}`);
  }
}
