import t from 'tap'
import type { FastifyRequest } from 'fastify'
import { originCheck } from '../../../lib/http/origin.ts'
import { findToken, selectProtocol, type TokenSources } from '../../../lib/http/token-sources.ts'

function request (headers: Record<string, string>, more: object = {}): FastifyRequest {
  return { headers, query: {}, host: headers.host, ...more } as unknown as FastifyRequest
}

function token (headers: Record<string, string>, sources: TokenSources = {}, more: object = {}): string | null | undefined {
  return findToken(request(headers, more), sources)
}

t.test('the Authorization header gives the token, whatever the case of its scheme', async t => {
  t.equal(token({ authorization: 'Bearer abc.def-ghi' }), 'abc.def-ghi')
  t.equal(token({ authorization: 'bearer abc' }), 'abc')
  t.equal(token({ authorization: 'BEARER   abc ' }), 'abc')
  for (const header of ['Basic abc', 'Bearer', 'Bearer ', 'abc', '']) t.equal(token({ authorization: header }), undefined, header)
  t.equal(token({ authorization: 'Bearer a b' }), null, 'there is something, but it is no token')
})

t.test('the subprotocol after bearer gives the token', async t => {
  const from = (header: string): string | null | undefined => token({ 'sec-websocket-protocol': header })
  t.equal(from('bearer, abc'), 'abc')
  t.equal(from('chat,bearer,abc,other'), 'abc')
  for (const header of ['bearer', 'bearer,', 'chat, abc', '', 'Bearer, abc']) t.equal(from(header), undefined, header)
})

t.test('a cookie gives the token only when it is named', async t => {
  const from = (cookie: string, more?: object): string | null | undefined => token({ cookie }, { cookie: 'sid' }, more)
  t.equal(token({ cookie: 'sid=abc' }), undefined)
  t.equal(from('sid=abc'), 'abc')
  t.equal(from('a=1; sid=abc; b=2'), 'abc')
  t.equal(from('sid="abc"'), 'abc')
  t.equal(from('sid=a%2Bb'), 'a+b')
  t.equal(from('sid=100%'), '100%')
  t.equal(from('sid=a=b'), 'a=b')
  t.equal(from('sid=first; sid=second'), 'first')
  for (const header of ['xsid=abc', 'sid', 'sid=', 'SID=abc', '']) t.equal(from(header), undefined, header)
})

t.test('@fastify/cookie is trusted with the cookies where it is there', async t => {
  t.equal(token({ cookie: 'sid=raw' }, { cookie: 'sid' }, { cookies: { sid: 'parsed' } }), 'parsed')
  t.equal(token({ cookie: 'sid=raw' }, { cookie: 'sid' }, { cookies: {} }), undefined)
  t.equal(token({ cookie: 'constructor=raw' }, { cookie: 'constructor' }, { cookies: {} }), undefined)
  t.equal(token({ cookie: 'sid=raw' }, { cookie: 'sid' }, { cookies: null }), 'raw')
})

t.test('a query parameter gives the token only when it is named, and only once', async t => {
  t.equal(token({}, {}, { query: { token: 'abc' } }), undefined)
  t.equal(token({}, { query: 'token' }, { query: { token: 'abc' } }), 'abc')
  t.equal(token({}, { query: 'token' }, { query: { token: ['a', 'b'] } }), null)
  t.equal(token({}, { query: 'token' }, { query: { token: { a: 'b' } } }), null, 'as other query parsers have it')
  t.equal(token({}, { query: 'token' }, { query: { token: '' } }), undefined)
  t.equal(token({}, { query: 'token' }, { query: null }), undefined)
})

t.test('the header comes first, then the subprotocol, the cookie, the query', async t => {
  const sources = { cookie: 'sid', query: 'token' }
  const query = { query: { token: 'q' } }
  const cookie = { cookie: 'sid=c' }
  const protocol = { 'sec-websocket-protocol': 'bearer, p' }
  t.equal(token({ ...cookie, ...protocol, authorization: 'Bearer a' }, sources, query), 'a')
  t.equal(token({ ...cookie, ...protocol, authorization: 'Basic a' }, sources, query), 'p')
  t.equal(token(cookie, sources, query), 'c')
  t.equal(token({}, sources, query), 'q')
  t.equal(
    token({ ...protocol, authorization: 'Bearer a b' }, sources, query), null, 'what is no token there is not made good by another one'
  )
})

t.test('the selected subprotocol is never the token', async t => {
  const select = (...offered: string[]): string | false => selectProtocol(new Set(offered))
  t.equal(select('bearer', 'abc'), 'bearer')
  t.equal(select('bearer'), 'bearer')
  t.equal(select('bearer', 'abc', 'chat'), 'chat')
  t.equal(select('chat', 'bearer', 'abc'), 'chat')
  t.equal(select('chat', 'bearer'), 'chat')
  t.equal(select('chat', 'other'), 'chat')
  t.equal(select(), false)
})

t.test('allowed origins are compared by scheme, host and port', async t => {
  const allowed = [
    'https://Example.com:443', 'capacitor://localhost', 'http://localhost:3000', 'http://b\u00fccher.example', 'chrome-extension://abcdef'
  ]
  const allows = originCheck(allowed, false)
  for (const origin of [
    'https://example.com', 'HTTPS://Example.com', 'https://example.com:443', 'capacitor://localhost', 'http://localhost:3000',
    'http://xn--bcher-kva.example',
    'chrome-extension://abcdef'
  ]) t.equal(allows(request({ origin })), true, origin)
  for (const origin of [
    'http://example.com', 'https://example.com:8443', 'https://example.com.evil.org', 'https://example.com@evil.org',
    'https://example.com:443/', 'http://localhost', 'capacitor://evil', 'null', ''
  ]) t.equal(allows(request({ origin })), false, origin)
  t.equal(allows(request({})), true, 'no browser')
})

t.test('what is no origin is refused as option', async t => {
  for (const origin of [
    '*', 'example.com', 'https://example.com/', 'https://example.com/app', 'https://*.example.com', 'app://*', 'wss://example.com',
    'https://a@example.com', 'https://example.com:99999', 'https://exa mple.com', 'null', '', 1
  ]) {
    t.throws(() => originCheck([origin as string], false), { code: 'WSG_OPTION_INVALID', message: /allowedOrigins/ }, String(origin))
  }
})

t.test('with a cookie, pages of other hosts are kept out unless they are named', async t => {
  const allows = originCheck(undefined, true)
  t.equal(allows(request({ origin: 'https://example.com', host: 'example.com' })), true)
  t.equal(allows(request({ origin: 'https://Example.com', host: 'EXAMPLE.com' })), true)
  t.equal(allows(request({ origin: 'http://example.com:8080', host: 'example.com:8080' })), true)
  t.equal(allows(request({ origin: 'https://example.com', host: 'example.com:443' })), true)
  t.equal(allows(request({ origin: 'http://example.com:80', host: 'example.com' })), true)
  t.equal(allows(request({ origin: 'https://example.com', host: 'example.com' }, { protocol: 'https' })), true)
  t.equal(allows(request({ origin: 'http://example.com', host: 'example.com' }, { protocol: 'https' })), false, 'the page came without TLS')
  t.equal(allows(request({ host: 'example.com' })), true, 'no browser')
  for (const origin of ['https://evil.org', 'https://example.com:8443', 'https://sub.example.com', 'null', 'nonsense']) {
    t.equal(allows(request({ origin, host: 'example.com' })), false, origin)
  }
  t.equal(originCheck(['https://evil.org'], true)(request({ origin: 'https://evil.org', host: 'example.com' })), true)
  const allowed = originCheck(undefined, false)(request({ origin: 'https://evil.org', host: 'example.com' }))
  t.equal(allowed, true, 'a browser does not send a token in a header')
})

t.test('a function decides about origins by itself, and only true lets in', async t => {
  const allows = originCheck(origin => origin.endsWith('.example.com'), true)
  t.equal(await allows(request({ origin: 'https://a.example.com' })), true)
  t.equal(await allows(request({ origin: 'https://evil.org' })), false)
  t.equal(await allows(request({})), true)
  for (const answer of [undefined, null, 1, 'https://evil.org', {}, Promise.resolve(false), Promise.resolve('yes')]) {
    const check = originCheck(() => answer as boolean, false)
    t.equal(await check(request({ origin: 'https://evil.org' })), false, String(answer))
  }
  t.equal(await originCheck(async () => true, false)(request({ origin: 'https://evil.org' })), true)
})
