// Problems are told in our own words; zod's stand behind them in English.
export { default as en } from 'zod/v4/locales/en.js'
