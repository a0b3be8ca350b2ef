declare const binding: Record<string, unknown>
export = binding
