/* Calls everything with what gSOAP makes of the description: client VERSION URL */
#include "matrixH.h"
#include <limits.h>
#include "MatrixSoap.nsmap"

#define SAME(condition)                                                                                                \
    if (!(condition)) {                                                                                                \
        fprintf(stderr, "line %d: not so: %s\n", __LINE__, #condition);                                                \
        return 1;                                                                                                      \
    }
#define CALLED(call)                                                                                                   \
    if ((call) != SOAP_OK) {                                                                                           \
        soap_print_fault(soap, stderr);                                                                                \
        soap_print_fault_location(soap, stderr);                                                                       \
        return 1;                                                                                                      \
    }

static int everything(struct soap *soap, const char *url) {
    unsigned char bytes[256];
    for (int i = 0; i < 256; i++)
        bytes[i] = (unsigned char)i;
    char *tags[] = {"x", "", "y z"};
    LONG64 three = 3;
    struct ns1__Line lines[] = {{"b", &three}, {"c", NULL}}, main_line = {"a", &three};
    time_t moment = 1709209815; /* 2024-02-29T12:30:15Z */
    struct _ns1__Echo given;
    soap_default__ns1__Echo(soap, &given);
    given.text = "Zo\xc3\xab & <sons>";
    given.whole = -7;
    given.ratio = 1.5;
    given.flag = xsd__boolean__true_;
    given.price = "12.50";
    given.day = "2024-02-29";
    given.moment = moment;
    given.pause = 90.5;
    given.id = "00000000-0000-0000-0000-000000000005";
    given.content.__ptr = bytes;
    given.content.__size = sizeof bytes;
    given.kind = _ns1__Echo_kind__trade;
    given.nothing = NULL;
    given.main = &main_line;
    given.__sizetags = 3;
    given.tags = tags;
    given.__sizelines = 2;
    given.lines = lines;
    struct _ns1__EchoResponse answer;
    CALLED(soap_call___ns1__Echo(soap, url, NULL, &given, &answer));
    SAME(!strcmp(answer.text, given.text) && answer.whole == -7 && answer.ratio == 1.5);
    SAME(answer.flag == xsd__boolean__true_ && !strcmp(answer.price, "12.50") && !strcmp(answer.day, "2024-02-29"));
    SAME(answer.moment == moment && answer.pause == 90.5 && !strcmp(answer.id, given.id));
    SAME(answer.content.__size == 256 && !memcmp(answer.content.__ptr, bytes, 256));
    SAME((int)answer.kind == (int)_ns1__EchoResponse_kind__trade && !answer.nothing && !answer.optional);
    SAME(!strcmp(answer.main->sku, "a") && *answer.main->quantity == 3);
    SAME(answer.__sizetags == 3 && !strcmp(answer.tags[1], "") && !strcmp(answer.tags[2], "y z"));
    SAME(answer.__sizelines == 2 && *answer.lines[0].quantity == 3 && *answer.lines[1].quantity == 1);
    given.nothing = "something";
    given.optional = "there";
    given.__sizetags = given.__sizelines = 0;
    CALLED(soap_call___ns1__Echo(soap, url, NULL, &given, &answer));
    SAME(!strcmp(answer.nothing, "something") && !strcmp(answer.optional, "there"));
    SAME(answer.__sizetags == 0 && answer.__sizelines == 0);
    return 0;
}

/* Lists of scalars, and structures in structures in lists. */
static int nested(struct soap *soap, const char *url) {
    LONG64 numbers[] = {1, LLONG_MIN, LLONG_MAX}, three = 3, two = 2;
    double ratios[] = {0.5, -1e300};
    enum xsd__boolean flags[] = {xsd__boolean__true_, xsd__boolean__false_};
    char *prices[] = {"0.10", "12345678901234567890.5"};
    time_t moments[] = {1709209815};
    struct ns1__Line lines[] = {{"a", &two}, {"a", &two}};
    struct ns1__Address a = {"A", &three}, b = {"B", NULL};
    struct ns1__Customer zoe = {"Zo\xc3\xab", &a}, bob = {"Bob", &b};
    struct ns1__Order orders[] = {{&zoe, 2, lines}, {&bob, 0, NULL}};
    struct _ns1__Nest given;
    soap_default__ns1__Nest(soap, &given);
    given.small = 7;
    given.size = _ns1__Nest_size__m;
    given.at = "10:30:15";
    given.__sizenumbers = 3;
    given.numbers = numbers;
    given.__sizeratios = 2;
    given.ratios = ratios;
    given.__sizeflags = 2;
    given.flags = flags;
    given.__sizeprices = 2;
    given.prices = prices;
    given.__sizemoments = 1;
    given.moments = moments;
    given.__sizeorders = 2;
    given.orders = orders;
    struct _ns1__NestResponse answer;
    CALLED(soap_call___ns1__Nest(soap, url, NULL, &given, &answer));
    SAME(answer.small == 7 && (int)answer.size == (int)_ns1__NestResponse_size__m && !strcmp(answer.at, given.at));
    SAME(answer.__sizenumbers == 3 && !memcmp(answer.numbers, numbers, sizeof numbers));
    SAME(answer.__sizeratios == 2 && !memcmp(answer.ratios, ratios, sizeof ratios));
    SAME(answer.__sizeflags == 2 && answer.flags[0] == flags[0] && answer.flags[1] == flags[1]);
    SAME(answer.__sizeprices == 2 && !strcmp(answer.prices[1], prices[1]));
    SAME(answer.__sizemoments == 1 && answer.moments[0] == moments[0]);
    SAME(answer.__sizeorders == 2 && answer.orders[0].__sizelines == 2 && answer.orders[1].__sizelines == 0);
    SAME(!strcmp(answer.orders[0].customer->name, zoe.name) && *answer.orders[0].customer->address->floor == 3);
    SAME(!strcmp(answer.orders[1].customer->address->street, "B") && !answer.orders[1].customer->address->floor);
    return 0;
}

/* A large binary, in the envelope or beside it (MTOM). */
static int binary(struct soap *soap, const char *url, int is_beside) {
    int size = 100000;
    unsigned char *content = soap_malloc(soap, size);
    for (int i = 0; i < size; i++)
        content[i] = (unsigned char)(i * 7);
    struct _ns1__Store given;
    soap_default__ns1__Store(soap, &given);
    given.content.__ptr = content;
    given.content.__size = size;
    if (is_beside)
        given.content.type = "application/octet-stream";
    struct _ns1__StoreResponse answer;
    CALLED(soap_call___ns1__Store(soap, url, NULL, &given, &answer));
    SAME(answer.content.__size == size);
    for (int i = 0; i < size; i++)
        SAME(answer.content.__ptr[i] == content[size - 1 - i]);
    SAME(!is_beside == !answer.content.id);
    return 0;
}

static int fault(struct soap *soap, const char *url, int version) {
    struct _ns1__Refuse given = {"because"};
    struct _ns1__RefuseResponse answer;
    SAME(soap_call___ns1__Refuse(soap, url, NULL, &given, &answer) != SOAP_OK);
    SAME(!strcmp(*soap_faultstring(soap), "because"));
    SAME(soap->version == version);
    struct SOAP_ENV__Detail *detail = version == 1 ? soap->fault->detail : soap->fault->SOAP_ENV__Detail;
    SAME(detail && detail->ns1__ServiceFault && detail->ns1__ServiceFault->status == 409);
    return 0;
}

int main(int count, char **arguments) {
    SAME(count == 3);
    int version = strcmp(arguments[1], "1.1") ? 2 : 1;
    const char *url = arguments[2];
    struct soap *soap = soap_new1(SOAP_XML_STRICT | SOAP_C_UTFSTRING);
    soap_set_namespaces(soap, namespaces);
    if (everything(soap, url) || nested(soap, url) || binary(soap, url, 0) || fault(soap, url, version))
        return 1;
    soap_set_omode(soap, SOAP_ENC_MTOM);
    if (binary(soap, url, 1))
        return 1;
    soap_clr_omode(soap, SOAP_ENC_MTOM);
    struct _ns1__Notify note = {version == 1 ? "gsoap 1.1" : "gsoap 1.2"};
    CALLED(soap_send___ns1__Notify(soap, url, NULL, &note) || soap_recv_empty_response(soap));
    puts("done");
    return 0;
}
