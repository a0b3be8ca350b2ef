/**
 * Where numbers go that are read only so that they are fetched from memory. With thousands of series that is
 * what a reading costs, and a processor fetches for several series at once only where nothing between depends
 * on what it fetches: so a few series are read here and there before the first of them is judged. A number
 * that went nowhere would not be read at all, and one that is returned may cost an object.
 */
export const warmth = new Float64Array(1)
