"""A client that knows of the server what its AsyncAPI document says, and nothing else. Python's own library alone."""
import base64
import json
import os
import socket
import struct
import sys
import urllib.request

document = json.load(urllib.request.urlopen(sys.argv[1]))


def follow(ref):
    value = document
    for part in ref['$ref'].removeprefix('#/').split('/'):
        value = value[part]
    return value


def example(schema):
    """Some data that fits the schema."""
    if 'const' in schema:
        return schema['const']
    if schema.get('type') == 'object':
        return {name: example(schema['properties'][name]) for name in schema.get('required', [])}
    return 'from Python' if schema.get('type') == 'string' else 1


class Socket:
    def __init__(self, host, path, protocols):
        name, port = host.split(':')
        self.stream = socket.create_connection((name, int(port)), timeout=20)
        self.rest = b''
        key = base64.b64encode(os.urandom(16)).decode()
        lines = ['GET %s HTTP/1.1' % path, 'Host: ' + host, 'Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13',
                 'Sec-WebSocket-Key: ' + key, 'Sec-WebSocket-Protocol: ' + protocols]
        self.stream.sendall(('\r\n'.join(lines) + '\r\n\r\n').encode())
        while b'\r\n\r\n' not in self.rest:
            self.rest += self.stream.recv(4096)
        head, self.rest = self.rest.split(b'\r\n\r\n', 1)
        if b' 101 ' not in head.split(b'\r\n')[0]:
            raise SystemExit(head.decode())

    def send(self, message):
        data = json.dumps(message).encode()
        length = bytes([0x80 | len(data)]) if len(data) < 126 else bytes([0x80 | 126]) + struct.pack('>H', len(data))
        self.stream.sendall(b'\x81' + length + b'\0\0\0\0' + data)

    def take(self, count):
        while len(self.rest) < count:
            self.rest += self.stream.recv(4096)
        data, self.rest = self.rest[:count], self.rest[count:]
        return data

    def receive(self):
        _, length = self.take(2)
        if length == 126:
            length, = struct.unpack('>H', self.take(2))
        return json.loads(self.take(length))


operation = next(one for one in document['operations'].values() if one['action'] == 'receive' and 'reply' in one)
channel = follow(operation['channel'])
path = channel['address']
for name, parameter in channel['parameters'].items():
    path = path.replace('{%s}' % name, parameter['enum'][0])
schemes = [follow(scheme) for scheme in operation['security']]
assert any(scheme.get('scheme') == 'bearer' for scheme in schemes)

server = next(iter(document['servers'].values()))
client = Socket(server['host'], path, 'bearer, ' + sys.argv[2])
payload = follow(follow(operation['messages'][0]))['payload']
client.send({**example(payload), 'id': 1})
print(json.dumps(client.receive()))
print(json.dumps(client.receive()))
client.send({**example(payload), 'id': 2, 'data': {}})
print(json.dumps(client.receive()))
