/** Something a manager asked for that cannot be done; the message says why. */
export class FleetProblem extends Error {
  readonly status: number
  readonly code: string

  constructor(status: number, code: string, message: string) {
    super(message)
    this.name = 'FleetProblem'
    this.status = status
    this.code = code
  }
}
