// Makes the calls of standard input with the official SDK, one after another, and says what became of each.
// Input: [{"function", "arguments", "client", "baseURL"}]. Output: [{"returned"} | {"error": {"name", "status"}}].
import * as sdk from "@phala/cloud";
import { readFileSync } from "node:fs";

const outcomes = [];
for (const call of JSON.parse(readFileSync(0, "utf-8"))) {
  const client = sdk.createClient({ ...call.client, baseURL: call.baseURL });
  try {
    outcomes.push({ returned: await sdk[call.function](client, call.arguments) });
  } catch (error) {
    outcomes.push({ error: { name: error.name, status: error.status } });
  }
}
process.stdout.write(JSON.stringify(outcomes));
