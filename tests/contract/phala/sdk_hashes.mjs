// Hashes documents with the official packages. Input: JSON texts. Output: per text, the hash in each form.
import { getComposeHash, withComposeMethods } from "@phala/cloud";
import { readFileSync } from "node:fs";

const hashes = JSON.parse(readFileSync(0, "utf-8")).map((text) => ({
  compact: getComposeHash(JSON.parse(text)),
  normalized: getComposeHash(JSON.parse(text), true),
  pretty: withComposeMethods(JSON.parse(text)).getHash(),
}));
process.stdout.write(JSON.stringify(hashes));
