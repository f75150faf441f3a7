/** The versions that run here. A test compares `version` with package.json. */
export const versions = {
  version: '0.1.0',
  node: process.version,
  platform: `${process.platform} ${process.arch}`
} as const
