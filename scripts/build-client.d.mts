export declare const clientFiles: readonly string[]
export declare function buildClient (root: string, outdir: string): Promise<void>
