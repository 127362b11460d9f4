// Drives the official Safe kits against the sandbox: reads its task from standard input, prints one JSON object.
import SafeApiKit from '@safe-global/api-kit'
import Safe from '@safe-global/protocol-kit'
import { createPublicClient, createWalletClient, http } from 'viem'
import { privateKeyToAccount } from 'viem/accounts'
import { anvil } from 'viem/chains'

const chunks = []
for await (const chunk of process.stdin) chunks.push(chunk)
const task = JSON.parse(Buffer.concat(chunks).toString())

const api = new SafeApiKit({ chainId: 31337n, txServiceUrl: task.txServiceUrl })
const kitOf = (key) =>
  Safe.init({
    provider: task.rpcUrl,
    signer: key,
    safeAddress: task.safe,
    contractNetworks: { 31337: task.contracts },
  })
const addressOf = (key) => privateKeyToAccount(key).address
const [owner, secondOwner] = task.ownerKeys
const kit = await kitOf(owner)
const delegateKit = await kitOf(task.delegateKey)
const delegate = addressOf(task.delegateKey)
const wallet = createWalletClient({ account: privateKeyToAccount(owner), chain: anvil, transport: http(task.rpcUrl) })
const node = createPublicClient({ chain: anvil, transport: http(task.rpcUrl), pollingInterval: 20 })
const answers = {}

// The kit returns once a transaction is sent.
async function mined({ hash }) {
  await node.waitForTransactionReceipt({ hash })
  return hash
}

async function failure(call) {
  try {
    await call()
  } catch (error) {
    return `${error.message} ${JSON.stringify(error.data ?? null)}`
  }
  return 'no error'
}

answers.service = (await api.getServiceInfo()).version
answers.safe = await api.getSafeInfo(task.safe)
answers.ownedSafes = (await api.getSafesByOwner(addressOf(owner))).safes
answers.nextNonce = await api.getNextNonce(task.safe)

// A proposal in a delegate's name, refused until an owner has made it one.
const tx = await kit.createTransaction({ transactions: [{ to: task.to, value: '0', data: task.data }] })
const safeTxHash = await kit.getTransactionHash(tx)
const proposal = {
  safeAddress: task.safe,
  safeTransactionData: tx.data,
  safeTxHash,
  senderAddress: delegate,
  senderSignature: (await delegateKit.signHash(safeTxHash)).data,
  origin: 'official kits',
}
answers.beforeDelegation = await failure(() => api.proposeTransaction(proposal))
await api.addSafeDelegate({
  safeAddress: task.safe,
  delegateAddress: delegate,
  delegatorAddress: addressOf(owner),
  label: 'kits',
  signer: wallet,
})
answers.delegates = (await api.getSafeDelegates({ safeAddress: task.safe })).results
await api.proposeTransaction(proposal)
answers.proposed = await api.getTransaction(safeTxHash)
answers.nextNonceAfterProposal = await api.getNextNonce(task.safe)

// One owner signs the hash (eth_sign), the other typed data; the delegate may not confirm.
answers.delegateConfirms = await failure(() => api.confirmTransaction(safeTxHash, proposal.senderSignature))
await api.confirmTransaction(safeTxHash, (await kit.signHash(safeTxHash)).data)
const typed = await (await kitOf(secondOwner)).signTypedData(tx)
await api.confirmTransaction(safeTxHash, typed.data)
answers.confirmed = await api.getTransaction(safeTxHash)
answers.confirmations = (await api.getTransactionConfirmations(safeTxHash)).results
answers.pending = (await api.getPendingTransactions(task.safe)).results.map((pending) => pending.safeTxHash)

answers.executable = await kit.isValidTransaction(answers.confirmed)
answers.transactionHash = await mined(await kit.executeTransaction(answers.confirmed))
answers.executed = await api.getTransaction(safeTxHash)
answers.pendingAfter = (await api.getPendingTransactions(task.safe)).count
answers.all = (await api.getAllTransactions(task.safe)).results.map((one) => one.safeTxHash)
answers.confirmedTooLate = await failure(async () =>
  api.confirmTransaction(safeTxHash, (await kit.signHash(safeTxHash)).data),
)

// On-chain approval, then the rejection of another transaction at the same nonce.
const second = await kit.createTransaction({ transactions: [{ to: task.to, value: '0', data: task.data }] })
const secondHash = await kit.getTransactionHash(second)
await api.proposeTransaction({
  ...proposal,
  safeTransactionData: second.data,
  safeTxHash: secondHash,
  senderSignature: (await delegateKit.signHash(secondHash)).data,
})
await mined(await (await kitOf(secondOwner)).approveTransactionHash(secondHash))
answers.approvedOnChain = (await api.getTransaction(secondHash)).confirmations
const rejection = await kit.createRejectionTransaction(second.data.nonce)
const rejectionHash = await kit.getTransactionHash(rejection)
await api.proposeTransaction({
  safeAddress: task.safe,
  safeTransactionData: rejection.data,
  safeTxHash: rejectionHash,
  senderAddress: addressOf(owner),
  senderSignature: (await kit.signHash(rejectionHash)).data,
})
answers.rejection = await api.getTransaction(rejectionHash)
answers.listed = (await api.getMultisigTransactions(task.safe, { executed: false })).results.map((one) => one.safeTxHash)
answers.rejectionHash = rejectionHash
answers.secondHash = secondHash
answers.safeTxHash = safeTxHash

await api.removeSafeDelegate({ delegateAddress: delegate, delegatorAddress: addressOf(owner), signer: wallet })
answers.delegatesAfter = (await api.getSafeDelegates({ safeAddress: task.safe })).count
answers.unknownSafe = await failure(() => api.getSafeInfo('0x00000000000000000000000000000000DeaDBeef'))

process.stdout.write(JSON.stringify(answers))
