/** What runs here. That of the package is the one of package.json; a test sees to it. */
export const versions = {
  version: '0.1.0',
  node: process.version,
  platform: `${process.platform} ${process.arch}`
} as const
