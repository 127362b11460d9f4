// Compiles sandbox/contracts/src and writes artifacts/<Contract>.json (abi, bytecode, deployedBytecode, compiler).
//   node sandbox/contracts/build.mjs          rebuild
//   node sandbox/contracts/build.mjs --check  fail if the committed artifacts differ from a rebuild
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import solc from 'solc'

const here = dirname(fileURLToPath(import.meta.url))
const require = createRequire(import.meta.url)
const artifacts = join(here, 'artifacts')

// Contracts of ours, and those of OpenZeppelin that are deployed as they are.
const WANTED = {
  DstackAppV1: 'src/DstackAppV1.sol',
  DstackApp: 'src/DstackApp.sol',
  ERC1967Proxy: '@openzeppelin/contracts/proxy/ERC1967/ERC1967Proxy.sol',
  TimelockController: '@openzeppelin/contracts/governance/TimelockController.sol',
}

// bytecodeHash none: the bytecode depends on the code alone, not on comments or paths.
const settings = {
  evmVersion: 'cancun',
  optimizer: { enabled: true, runs: 200 },
  metadata: { bytecodeHash: 'none' },
}

function compile() {
  const sources = Object.fromEntries(Object.values(WANTED).map((name) => [name, { content: read(name) }]))
  const outputSelection = { '*': { '*': ['abi', 'evm.bytecode.object', 'evm.deployedBytecode.object'] } }
  const input = { language: 'Solidity', sources, settings: { ...settings, outputSelection } }
  const output = JSON.parse(solc.compile(JSON.stringify(input), { import: (path) => ({ contents: read(path) }) }))
  const problems = output.errors ?? []
  if (problems.length > 0) throw new Error(problems.map((problem) => problem.formattedMessage).join('\n'))
  return Object.fromEntries(Object.entries(WANTED).map(([name, source]) => [name, artifact(name, source, output)]))
}

function read(path) {
  return readFileSync(path.startsWith('src/') ? join(here, path) : require.resolve(path), 'utf8')
}

function artifact(contractName, sourceName, output) {
  const { abi, evm } = output.contracts[sourceName][contractName]
  const content = {
    contractName,
    sourceName,
    compiler: solc.version(),
    settings,
    abi,
    bytecode: `0x${evm.bytecode.object}`,
    deployedBytecode: `0x${evm.deployedBytecode.object}`,
  }
  return `${JSON.stringify(content, null, 1)}\n`
}

function check(built) {
  const expected = Object.keys(built).map((name) => `${name}.json`).sort()
  const committed = readdirSync(artifacts).sort()
  const stale = expected.filter(
    (file) => !committed.includes(file) || readFileSync(join(artifacts, file), 'utf8') !== built[file.slice(0, -5)],
  )
  const extra = committed.filter((file) => !expected.includes(file))
  if (stale.length + extra.length > 0) {
    console.error(`artifacts differ from a rebuild: ${[...stale, ...extra].join(', ')}; run node sandbox/contracts/build.mjs`)
    process.exitCode = 1
  } else {
    console.log(`${expected.length} artifacts equal a rebuild`)
  }
}

const built = compile()
if (process.argv.includes('--check')) {
  check(built)
} else {
  mkdirSync(artifacts, { recursive: true })
  for (const [name, content] of Object.entries(built)) writeFileSync(join(artifacts, `${name}.json`), content)
  console.log(`wrote ${Object.keys(built).length} artifacts`)
}
