# The application. It looks for its database by name, anew for each request.
import http.server, socket

class Application(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            with socket.create_connection(("db", 5432), timeout=10) as database:
                code, text = 200, "visit " + database.makefile().read() + "\n"
        except OSError as error:
            code, text = 503, "no database: " + str(error) + "\n"
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text.encode())

http.server.ThreadingHTTPServer(("", 8000), Application).serve_forever()
