import neostandard, { resolveIgnoresFromGitignore } from 'neostandard'

export default [
  ...neostandard({ ts: true, ignores: resolveIgnoresFromGitignore() }),
  {
    // Code, comments and strings. A URL cannot be broken.
    rules: { '@stylistic/max-len': ['error', { code: 140, ignoreUrls: true }] }
  },
  {
    files: ['**/*.ts', '**/*.tsx'],
    rules: {
      // `void promise` as a statement says that nobody waits for it, on purpose.
      'no-void': ['error', { allowAsStatement: true }],
      // A constant and the type of its values may share a name; the compiler reports real redeclarations.
      '@typescript-eslint/no-redeclare': 'off',
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/no-non-null-assertion': 'error',
      '@typescript-eslint/ban-ts-comment': ['error', { 'ts-expect-error': 'allow-with-description', 'ts-ignore': true, 'ts-nocheck': true }]
    }
  },
  {
    // The plugin speaks through the application's logger, never through the console.
    files: ['plugin.ts', 'lib/**/*.ts'],
    rules: { 'no-console': 'error' }
  }
]
