// A part of a library that the program never reaches: pino's worker threads, prom-client's exemplars, schema registries.
module.exports = {}
