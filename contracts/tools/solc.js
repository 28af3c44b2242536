#!/usr/bin/env node
// The compiler of the npm package `solc`, with the two options of the native compiler that forge uses.
"use strict";

const solc = require("solc");

if (process.argv.includes("--version")) {
  // Build metadata differs in form from that of the native compiler: forge wants `0.8.37+commit.…`.
  const version = solc.version().replace(/\.Emscripten.*$/, "");
  console.log(`solc, the solidity compiler commandline interface\nVersion: ${version}.Emscripten.clang`);
} else if (process.argv.includes("--standard-json")) {
  const chunks = [];
  process.stdin.on("data", (chunk) => chunks.push(chunk));
  process.stdin.on("end", () => process.stdout.write(solc.compile(Buffer.concat(chunks).toString("utf8"))));
} else {
  console.error("usage: solc.js --version | --standard-json < input.json");
  process.exit(2);
}
