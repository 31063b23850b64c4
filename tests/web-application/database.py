# A database of one number, which it keeps in a file. Whoever connects adds one, and gets it.
import os, socket

listener = socket.create_server(("", 5432))
while True:
    client, _ = listener.accept()
    with client:
        try:
            count = int(open("/data/count").read())
        except FileNotFoundError:
            count = 0
        with open("/data/count.new", "w") as file:
            file.write(str(count + 1))
            file.flush()
            os.fsync(file.fileno())
        os.replace("/data/count.new", "/data/count")
        client.sendall(str(count + 1).encode())
