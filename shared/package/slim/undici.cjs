// What the uplink sends through, without undici's fetch, caches, mocks and WebSocket.
const Dispatcher = require('undici/lib/dispatcher/dispatcher.js')
const Pool = require('undici/lib/dispatcher/pool.js')
const ProxyAgent = require('undici/lib/dispatcher/proxy-agent.js')
const connect = require('undici/lib/api/api-connect.js')
const request = require('undici/lib/api/api-request.js')

Object.assign(Dispatcher.prototype, { connect, request })
module.exports = { Pool, ProxyAgent }
