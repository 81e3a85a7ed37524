#!/usr/bin/env node
// The code that an authenticator app would show for a secret in base32 (RFC 6238: SHA-1, 6 digits, 30 s):
//   one-time-code.mjs SECRET [STEPS AHEAD]
import { createHmac } from "node:crypto";

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const [secret = "", ahead = "0"] = process.argv.slice(2);
const bits = [...secret.toUpperCase().replace(/[\s=]/g, "")].map((letter) => alphabet.indexOf(letter).toString(2).padStart(5, "0")).join("");
const key = Buffer.from((bits.match(/.{8}/g) ?? []).map((byte) => parseInt(byte, 2)));
const counter = Buffer.alloc(8);
counter.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000) + Number(ahead)));
const mac = createHmac("sha1", key).update(counter).digest();
const offset = mac[19] & 15;
console.log(String((mac.readUInt32BE(offset) & 0x7fffffff) % 1_000_000).padStart(6, "0"));
