export declare function browserBinary (): string | undefined
