// The functions of classic-level's native part, once `addon.ts` has loaded it.
module.exports = {}
