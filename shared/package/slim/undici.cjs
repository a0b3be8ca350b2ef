// The pool that the uplink sends through, without undici's fetch, caches, mocks and WebSocket.
const Dispatcher = require('undici/lib/dispatcher/dispatcher.js')
const Pool = require('undici/lib/dispatcher/pool.js')
const request = require('undici/lib/api/api-request.js')

Object.assign(Dispatcher.prototype, { request })
module.exports = { Pool }
