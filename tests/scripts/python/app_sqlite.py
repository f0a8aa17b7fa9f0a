import contextlib
import sqlite3
import tempfile

print("Content-Type: text/plain\n")
with tempfile.TemporaryDirectory() as directory, contextlib.closing(sqlite3.connect(directory + "/x")) as database:
    database.execute("create table t (n)")
    database.executemany("insert into t values (?)", [(n,) for n in range(5)])
    print(database.execute("select sum(n) from t").fetchone(), tempfile.tempdir == directory.rpartition("/")[0])
kept = tempfile.TemporaryDirectory()
