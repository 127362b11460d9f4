// Verifies deliveries with the official JavaScript library. Standard input: [{secret, headers, body}].
import { readFileSync } from "node:fs";
import { Webhook } from "standardwebhooks";

const verdicts = JSON.parse(readFileSync(0, "utf8")).map(({ secret, headers, body }) => {
  try {
    return new Webhook(secret).verify(body, headers);
  } catch (error) {
    return error.name;
  }
});
process.stdout.write(JSON.stringify(verdicts));
