// Drives the official SDK against the sandbox; reads its task from standard input, prints one JSON object.
// Every function validates answers with the SDK's own schemas, so a finished run says the shapes are right.
import * as sdk from "@phala/cloud";
import { parseWebhookEvent } from "@phala/cloud/webhook";
import { anvil } from "viem/chains";

const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const task = JSON.parse(Buffer.concat(chunks).toString());
console.log = console.error; // the SDK prints receipts

const client = sdk.createClient({ apiKey: task.apiKey, baseURL: task.apiUrl });
const id = task.vmUuid;
const answers = {};

async function failure(call) {
  try {
    await call();
    return "no error";
  } catch (error) {
    return { name: error.constructor.name, status: error.status, code: error.errorCode, message: error.message };
  }
}

async function register(composeHash) {
  const result = await sdk.addComposeHash({
    chain: anvil,
    rpcUrl: task.rpcUrl,
    appId: task.app,
    composeHash,
    privateKey: task.privateKey,
  });
  return result.transactionHash;
}

// Just after an update was accepted the CVM still runs the old compose, so "running" alone says nothing.
async function settled() {
  while ((await sdk.getCvmStatusBatch(client, { vmUuids: [id] }))[id].in_progress) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return sdk.watchCvmState(client, { uuid: id, target: "running", interval: 5, timeout: 600, maxRetries: 1 });
}
const composeFile = (tag) => `services:\n  web:\n    image: nginx:${tag}\n`;
const prepare = (tag) => sdk.patchCvm(client, { uuid: id, docker_compose_file: composeFile(tag), prepareOnly: true });
const commit = (prepared, transactionHash = "", composeHash = "") =>
  sdk.commitCvmUpdate(client, { uuid: id, token: prepared.commitToken, composeHash, transactionHash });
const moveClock = async (offset) => {
  const response = await fetch(`${task.controlUrl}/_sandbox/settings`, {
    method: "PATCH",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ clock_offset: offset }),
  });
  if (!response.ok) throw new Error(`clock: ${response.status}`);
};

// The reads first: what is there before anything changes.
answers.info = await sdk.getCvmInfo(client, { uuid: id });
answers.legacy = await sdk.getCvmInfo(sdk.createClient({ apiKey: task.apiKey, baseURL: task.apiUrl, version: "2025-10-28" }), {
  uuid: id,
});
answers.state = await sdk.getCvmState(client, { app_id: task.app.slice(2) });
answers.compose = (await sdk.getCvmComposeFile(client, { name: answers.info.name })).docker_compose_file;
answers.dockerCompose = await sdk.getCvmDockerCompose(client, { id });
answers.preLaunchScript = await sdk.getCvmPreLaunchScript(client, { id });
answers.userConfig = await sdk.getCvmUserConfig(client, { instance_id: `instance_${answers.info.instance_id}` });
answers.attestation = await sdk.getCvmAttestation(client, { id: answers.info.id });
answers.osImages = await sdk.getAvailableOsImages(client, { uuid: id });
answers.allOsImages = await sdk.getOsImages(client, { page: 1, page_size: 10, is_dev: false });
answers.me = await sdk.getCurrentUser(client);
answers.list = await sdk.getCvmList(client, { page: 1, page_size: 10 });
answers.apps = await sdk.getAppList(client);
answers.appCvms = (await sdk.getAppCvms(client, { appId: task.app })).length;
answers.kmsList = await sdk.getKmsList(client, { is_onchain: true });
answers.kms = await sdk.getKmsInfo(client, { kms_id: answers.legacy.kms_info.slug });
answers.pubkey = await sdk.getAppEnvEncryptPubKey(client, { kms: answers.legacy.kms_info.slug, app_id: task.app });
answers.allowed = await sdk.checkCvmIsAllowed(client, { cvmId: id });
answers.appAllowed = await sdk.checkAppIsAllowed(client, { appId: task.app, compose_hash: "11".repeat(32) });
answers.appCvmsAllowed = await sdk.checkAppCvmsIsAllowed(client, { appId: task.app });
answers.allowlist = await sdk.getAppDeviceAllowlist(client, { appId: task.app });
answers.batch = await sdk.getCvmStatusBatch(client, { vmUuids: [id] });
answers.refresh = await sdk.refreshCvmInstanceId(client, { uuid: id });
answers.refreshAll = await sdk.refreshCvmInstanceIds(client, { missing_only: false });
answers.unknown = await failure(() => sdk.getCvmInfo(client, { id: "nobody-here" }));
answers.webhook = parseWebhookEvent(task.webhook);

// Prepare, register, commit; and every way a commit can be refused.
const first = await prepare("1.1");
answers.prepared = first;
answers.unregistered = await failure(() => commit(first));
const transaction = await register(first.composeHash);
answers.wrongTransaction = await failure(() => commit(first, `0x${"12".repeat(32)}`, first.composeHash));
const second = await prepare("1.1");
answers.sameHash = second.composeHash === first.composeHash;
answers.superseded = await failure(() => commit(first, transaction, first.composeHash));
await moveClock(task.clockOffset + 14 * 24 * 3600 + 1);
answers.expired = await failure(() => commit(second, transaction, first.composeHash));
await moveClock(task.clockOffset);
answers.committed = await commit(second, transaction, second.composeHash);
answers.watched = await settled();
answers.reused = await failure(() => commit(second, transaction, second.composeHash));
answers.runs = await sdk.getCvmInfo(client, { uuid: id });

// The direct path and the one-purpose endpoints, both phases.
const direct = await sdk.patchCvm(client, { uuid: id, docker_compose_file: composeFile("1.2") });
answers.directHasToken = direct.commitToken !== undefined;
answers.unproven = await failure(() =>
  sdk.confirmCvmPatch(client, { uuid: id, composeHash: direct.composeHash, transactionHash: transaction }),
);
const directTransaction = await register(direct.composeHash);
await sdk.confirmCvmPatch(client, { uuid: id, composeHash: direct.composeHash, transactionHash: directTransaction });
await settled();

async function twoPhases(update, body) {
  const phase1 = await update(client, { uuid: id, ...body });
  if (phase1.status !== "precondition_required") throw new Error(`phase 1 answered ${phase1.status}`);
  const proof = { compose_hash: phase1.compose_hash, transaction_hash: await register(phase1.compose_hash) };
  const phase2 = await update(client, { uuid: id, ...body, ...proof });
  await settled();
  return phase2.status;
}
answers.dockerComposeUpdate = await twoPhases(sdk.updateDockerCompose, { docker_compose_file: composeFile("1.3") });
answers.scriptUpdate = await twoPhases(sdk.updatePreLaunchScript, { pre_launch_script: "echo héllo\n" });
const encrypted = await sdk.encryptEnvVars([{ key: "DB_URL", value: "postgres://x" }], answers.pubkey.public_key);
answers.envsUpdate = await twoPhases(sdk.updateCvmEnvs, { encrypted_env: encrypted, env_keys: ["DB_URL"] });

const app_compose = { ...(await sdk.getCvmComposeFile(client, { uuid: id })), docker_compose_file: composeFile("1.4") };
const provisioned = await sdk.provisionCvmComposeFileUpdate(client, { uuid: id, app_compose });
answers.ownHash = sdk.getComposeHash(JSON.parse(JSON.stringify(app_compose))) === provisioned.compose_hash;
await register(provisioned.compose_hash);
await sdk.commitCvmComposeFileUpdate(client, { uuid: id, compose_hash: provisioned.compose_hash });
await settled();

await sdk.updateCvmResources(client, { uuid: id, vcpu: 2, memory: 4096 });
await settled();
await sdk.updateOsImage(client, { uuid: id, os_image_name: "dstack-0.5.5" });
await settled();
answers.visibility = await sdk.updateCvmVisibility(client, { uuid: id, public_sysinfo: true, public_logs: true });
answers.finally = await sdk.getCvmInfo(client, { uuid: id });
answers.revisions = await sdk.getAppRevisions(client, { appId: task.app });
answers.revision = await sdk.getAppRevisionDetail(client, {
  appId: task.app,
  revisionId: answers.revisions.revisions[0].revision_id,
  rawComposeFile: true,
});

process.stdout.write(JSON.stringify(answers, (_, value) => (typeof value === "bigint" ? Number(value) : value)));
