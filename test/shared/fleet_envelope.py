"""
Envelopes of docs/FLEET-WIRE.md, with cbor2 and cryptography alone:

  open  <public key, PEM file>    reads envelopes on stdin, one a line in hex; prints their payloads as JSON
  sign  <private key, PEM file>   reads a configuration's payload on stdin as JSON; prints its envelope in hex
"""

import json
import sys

import cbor2
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

COSE_SIGN1 = 18
ALGORITHM, CONTENT_TYPE = 1, 3
EDDSA = -8


def signed_bytes(protected: bytes, payload: bytes) -> bytes:
    return cbor2.dumps(["Signature1", protected, b"", payload])


def open_envelope(envelope: bytes, public_key) -> dict:
    tagged = cbor2.loads(envelope)
    assert tagged.tag == COSE_SIGN1
    protected, unprotected, payload, signature = tagged.value
    header = cbor2.loads(protected)
    assert header[ALGORITHM] == EDDSA
    assert unprotected == {}
    public_key.verify(signature, signed_bytes(protected, payload))
    assert cbor2.dumps(cbor2.loads(payload), canonical=True) == payload, "not deterministic"
    return {"type": header[CONTENT_TYPE], **cbor2.loads(payload)}


def sign(payload: dict, private_key) -> bytes:
    header = {ALGORITHM: EDDSA, CONTENT_TYPE: "application/vnd.headgate.configuration+cbor"}
    protected = cbor2.dumps(header, canonical=True)
    encoded = cbor2.dumps(payload, canonical=True)
    signature = private_key.sign(signed_bytes(protected, encoded))
    return cbor2.dumps(cbor2.CBORTag(COSE_SIGN1, [protected, {}, encoded, signature]))


verb, file = sys.argv[1:]
with open(file, "rb") as pem:
    if verb == "open":
        key = load_pem_public_key(pem.read())
        for line in sys.stdin:
            print(json.dumps(open_envelope(bytes.fromhex(line), key)))
    else:
        key = load_pem_private_key(pem.read(), None)
        print(sign(json.load(sys.stdin), key).hex())
