import type { Test } from 'tap'
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { connect, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createServer } from 'node:tls'

/** Puts TLS in front of ports of this machine. `ports`: where each is reached then; `cert`: the certificate of localhost they all show. */
export async function startTlsProxies (t: Test, targets: readonly number[]): Promise<{ readonly ports: number[], readonly cert: Buffer }> {
  const folder = mkdtempSync(join(tmpdir(), 'tls-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const [keyFile, certFile] = [join(folder, 'key.pem'), join(folder, 'cert.pem')]
  execFileSync('openssl', [
    'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', keyFile, '-out', certFile,
    '-subj', '/CN=localhost', '-days', '2'
  ], { stdio: 'ignore' })
  const [key, cert] = [readFileSync(keyFile), readFileSync(certFile)]
  const ports = await Promise.all(targets.map(async target => {
    const server = createServer({ key, cert }, secure => {
      const plain = connect(target, '127.0.0.1')
      secure.pipe(plain).pipe(secure)
      for (const [one, other] of [[secure, plain], [plain, secure]] as const) one.on('error', () => {}).on('close', () => other.destroy())
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    t.teardown(() => { server.close() })
    return (server.address() as AddressInfo).port
  }))
  return { ports, cert }
}
