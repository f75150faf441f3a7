export { testCluster } from './cluster.ts'
export type { TestCluster, TestClusterOptions, TestInstance } from './cluster.ts'
export type { FramedTestClient, OpenOptions, TestClient } from './clients.ts'
export type { Closed, WaitOptions } from './inbox.ts'
