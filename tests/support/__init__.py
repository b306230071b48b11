"""What tests share. From the smallest to the whole, take the first that is enough:

- `fakes`: one part in memory. A stage, a clock, an event loop whose time jumps, threads that are none, connections that
  answer from a script. For tests of one module.
- `project`: a folder with a manifest and its assets on the real disk, and a manager with small segments that never
  waits. With the fixture `server` it is the usual end-to-end set in one process.
- `small_world`: the whole of grym-fetch on one thread, with an origin in memory and simulated time. For tests
  that count steps, break the n-th of them, or need each run to be the same.
- `tests.regressions.world`: a project and a server for one story. Break off, change the file, go on.
- `tests.end_to_end.command`: the real command as a real process, which `starter` forks from one that waits for work.
- `nginx`, `tinyproxy`: real programs, as the second opinion on what a server or a proxy does.
- `authority`: the TLS of a server that this process trusts.

Around them: `invariants` holds a run to all that must be true of every run (`checked_sync`, `Rules`); `power_cut` works
out what a disk may hold after the power has failed; `transports` are the two ways over which HTTP goes;
`example_errors` has one of each error; `properties` says how many examples a property gets, `sweeps` which cases run
each time; `system` asks the operating system, `system_calls` lets it fail, `mounts` has file systems of a test's own,
and `archives` makes zip files.
`tests.display.scripted` has what only a display meets: a terminal, and a view.
"""
