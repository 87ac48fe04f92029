from crosstie import Model, Service, rest


class Greeting(Model):
    text: str
    visits: int = 0


class Hello(Service):
    """Greets a caller by name."""

    name = "demo.hello"
    channels = [rest("GET", "/hello/{name}")]
    output = Greeting

    def handle(self):
        self.response.payload = Greeting(text=f"Hello {self.request.http.params['name']}")
