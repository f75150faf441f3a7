// For the demonstration only: a real page has a log-in, which gives it a token, and asks its service for names.
export const people = [
  { userId: 'ann', name: 'Ann Arbor', about: 'owns #general and #board' },
  { userId: 'ben', name: 'Ben Nevis', about: 'owns #design' },
  { userId: 'cleo', name: 'Cleo Patras', about: 'is a guest in #design' },
  { userId: 'dan', name: 'Dan Ube', about: 'is in #general alone' }
]

export const tokenOf = (userId: string): string => `${userId}-token`

export const nameOf = (userId: string): string => people.find(person => person.userId === userId)?.name ?? userId
