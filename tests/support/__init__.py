"""What tests share. From the smallest to the largest; take the first that is enough:

- `fakes`: one part in memory. A stage, a clock, an event loop whose time jumps, threads that are not real, connections
  that answer from a script. For tests of one module.
- `project`: a folder with a manifest and its assets on the real disk, and a manager with small segments that never
  waits. With the fixture `server` it is the usual end-to-end set in one process.
- `small_world`: all of grym-fetch on one thread, with an origin in memory and simulated time. For tests
  that count steps, break the n-th of them, or need each run to be the same.
- `tests.regressions.world`: a project and a server for one story. Break off, change the file, go on.
- `tests.end_to_end.command`: the real command as a real process, which `starter` forks from one that waits for work.
- `nginx`, `tinyproxy`: real programs, as a second opinion on what a server or a proxy does.
- `authority`: the TLS of a server that this process trusts.

What others run, or an imitation of it: `buckets`, `registry`, `git_lfs` and `hubs` (real servers where there are such);
`dask_cluster` and `ray_head` (real), `fake_cluster` (in memory); `other_user` works as somebody else. `darwin`
takes from Linux what macOS lacks, and `as_darwin` does it for a whole run; `on_wine` is for a Windows Python on Wine.
`terminal` is a screen.

Around them: `invariants` checks a run against all that must hold of every run (`checked_sync`, `Rules`); `power_cut`
works out what a disk may hold after a power failure; `transports` are the two ways over which HTTP goes;
`example_errors` has one of each error; `properties` says how many examples a property gets, `sweeps` which cases run
each time; `system` asks the operating system, `system_calls` makes it fail, `mounts` has file systems of a test's own,
and `archives` makes zip files.
`tests.display.scripted` has what only a display meets: a terminal and a view.
"""
