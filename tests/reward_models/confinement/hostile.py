# ruff: noqa: E501
"""Programs that try to do harm. Each is the body of the reward function; the placeholders are of `Host`.

`g` is the globals of the module os, found without a name that starts the search; `b` is all builtins.
"""

ESCAPE = """
def escape():
    for c in ().__class__.__base__.__subclasses__():
        if c.__name__ == "_wrap_close":
            return c.__init__.__globals__

def compute_dense_reward(state, action):
    g = escape()
    b = g["__builtins__"]
    imported = b["__import__"]
    total = np.zeros(len(action))
BODY
    return total, {"zero": total}
"""

BODIES = {
    # files
    "write a file": "b['open']({canary!r}, 'w').write('x')",
    "append by descriptor": "g['write'](g['open']({canary!r}, 1025), b'x')",
    "make a file": "b['open']({new!r}, 'w').close()",
    "delete": "g['unlink']({canary!r})",
    "rename": "g['rename']({canary!r}, {new!r})",
    "link": "g['symlink']({canary!r}, {new!r})",
    "hard link": "g['link']({canary!r}, {new!r})",
    "make it writable for all": "g['chmod']({canary!r}, 0o777)",
    "truncate": "g['truncate']({canary!r}, 0)",
    "make a folder": "g['mkdir']({new!r})",
    "set its times": "g['utime']({canary!r}, (0, 0))",
    "read a file into the message": "b['int'](b['open']({canary!r}).read())",
    "read the parent's environment": "b['int'](b['open']('/proc/{parent}/environ').read())",
    "its own environment into the message": "b['int'](repr(g['environ']))",
    "write the parent's memory by /proc": "f = b['open']('/proc/{parent}/mem', 'r+b'); f.seek({address}); f.write(b'x')",
    # numpy's own ways to files and memory
    "numpy: tofile": "total.tofile({new!r})",
    "numpy: dump": "total.dump({new!r})",
    "numpy: save": "imported('numpy').save({new!r}, total)",
    "numpy: savetxt": "imported('numpy').savetxt({new!r}, total)",
    "numpy: memmap": "imported('numpy').memmap({canary!r}, mode='r+')[:] = 0",
    "numpy: fromfile into the message": "b['int'](imported('numpy').fromfile({canary!r}, 'S20')[0])",
    "numpy: load a pickle": "imported('numpy').load({canary!r}, allow_pickle=True)",
    "numpy: beyond its memory": "imported('numpy').lib.stride_tricks.as_strided(total, (1 << 40,), (8,))[1 << 39] = 1.0",
    "numpy: make the state writable": "a = state.angle; a.setflags(write=True); a[:] = 0",
    # processes
    "a command": "g['system']('touch ' + {new!r})",
    "a pipe to a command": "g['popen']('touch ' + {new!r}).read()",
    "a subprocess": "imported('subprocess').run(['touch', {new!r}])",
    "another program in its place": "g['execv']('/usr/bin/touch', ['touch', {new!r}])",
    "posix_spawn": "g['posix_spawn']('/usr/bin/touch', ['touch', {new!r}], {{}})",
    "fork": "g['fork']() == 0 and b['open']({new!r}, 'w').close()",
    "fork again and again": "[g['fork']() for _ in range(3)]",
    "a thread": "imported('_thread').start_new_thread(g['unlink'], ({canary!r},))",
    "multiprocessing": "imported('multiprocessing').Process(target=print).start()",
    "kill another process": "g['kill']({child}, 9)",
    "kill another group": "g['killpg']({child}, 9)",
    "stop the parent": "g['kill']({parent}, 19)",
    "leave the session": "g['setsid']()",
    "forget to die with the parent": "libc.prctl(1, 0, 0, 0, 0)",
    "more memory": "r = imported('resource'); r.setrlimit(r.RLIMIT_AS, (-1, -1))",
    "another filter": "libc.prctl(22, 2, 0, 0, 0)",
    "a signal handler": "imported('signal').signal(15, print)",
    # the network
    "connect": "imported('socket').create_connection(('127.0.0.1', {port}))",
    "connect by number": "libc.syscall(41, 2, 1, 0)",
    "listen": "imported('socket').create_server(('127.0.0.1', 0))",
    "an internet address": "imported('urllib.request').urlopen('http://127.0.0.1:{port}')",
    "a datagram": "s = imported('socket'); s.socket(s.AF_INET, s.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))",
    # system calls by number, through ctypes, which the process has loaded
    "open by number": "libc.syscall(2, {canary!r}.encode(), 1 | 512, 0)",
    "openat by number": "libc.syscall(257, -100, {canary!r}.encode(), 1 | 512, 0)",
    "io_uring": "libc.syscall(425, 8, b'0' * 120)",
    "write the parent's memory by number": "libc.syscall(311, {parent}, b'0' * 16, 1, b'0' * 16, 1, 0)",
    "trace another process": "libc.ptrace(16, {child}, 0, 0)",
    "memory that can be executed": "libc.mmap(0, 4096, 7, 34, -1, 0)",
    "memory made executable": "libc.mprotect(libc.valloc(4096) & -4096, 4096, 7)",
    "a call of another interface": "libc.syscall(0x40000000 + 2, {canary!r}.encode(), 1, 0)",
    "a null pointer": "ctypes.string_at(0)",
    # descriptors and the conversation
    "read other descriptors": "[g['read'](n, 10) for n in range(3, 9)]",
    "write its standard error": "g['write'](2, b'x')",
    "close its output": "g['close'](1)",
    "exhaust descriptors": "[g['pipe']() for _ in range(100)]",
    "print megabytes": "[g['write'](1, b'x' * 65536) for _ in range(100)]",
    "a frame of 2**60 bytes": "g['write'](1, b'd' + (1 << 60).to_bytes(8, 'little'))",
    "a forged answer that is too short": "g['write'](1, b'd' + (4).to_bytes(8, 'little') + b'abcd')",
    "a forged pickle": "g['write'](1, b'd' + (22).to_bytes(8, 'little') + b'cos\\nsystem\\n(S\"ls\"\\ntR.')",
    "a message of megabytes": "raise b['ValueError']('x' * 10_000_000)",
    "escape sequences in a message": "raise b['ValueError'](chr(27) + ']0;owned' + chr(7) + chr(27) + '[2J')",
    "end itself": "g['_exit'](0)",
    "raise SystemExit": "raise b['SystemExit'](0)",
    "raise KeyboardInterrupt": "raise b['KeyboardInterrupt']()",
    "leave something for its end": "imported('atexit').register(g['unlink'], {canary!r}); g['_exit'](0)",
    "a finaliser": "b['type']('T', (), {{'__del__': lambda self: g['unlink']({canary!r})}})()",
    "switch its checks off": "worker = [m for n, m in g['sys'].modules.items() if n.endswith('worker')][0]; "
    "worker._column = lambda what, value, rows: np.full(rows, np.inf); total = None",
    "names that are none": "worker = [m for n, m in g['sys'].modules.items() if n.endswith('worker')][0]; "
    "worker.str = lambda value: value; return total, {{type('Id', (str,), {{'isidentifier': lambda s: True}})('x\\n,y'): total}}",
    "walk frames to the caller": "g['sys']._getframe(1).f_globals['_send'](b'd', b'x' * 16); g['_exit'](0)",
    # time and memory
    "an endless loop": "\n    while True: pass",
    "an endless loop that catches all": "\n    while True:\n        try: g['kill'\n            ]\n        except b['BaseException']: pass",
    "sleep": "imported('time').sleep(60)",
    "two gigabytes": "np.zeros(1 << 28)",
    "a leak": "keep = []\n    while True: keep.append(np.ones(1 << 22))",
    "a large power": "10 ** 10 ** 9",
    "a long list": "list(range(10 ** 10))",
    "a regular expression": "imported('re').match('(a+)+$', 'a' * 60 + 'b')",
    "no end of recursion": "g['sys'].setrecursionlimit(10 ** 9); f = lambda x: f(x + 1); f(0)",
    "wait for ever": "imported('threading').Event().wait()",
}


def source(body: str, facts: dict[str, object]) -> str:
    """Return a program with this body."""
    lines = [
        "ctypes = g['sys'].modules['ctypes']; libc = ctypes.CDLL(None)" if "libc" in body or "ctypes" in body else ""
    ]
    text = "\n".join(f"    {line}" for line in [*filter(None, lines), body.format(**facts)])
    return ESCAPE.replace("BODY", text)
