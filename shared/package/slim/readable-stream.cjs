// Node's own streams, of which readable-stream is a copy for other Nodes.
module.exports = require('node:stream')
