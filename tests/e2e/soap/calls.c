/* Calls a channel of rpc style with what gSOAP makes of its description: calls URL */
#include "soapH.h"
#include "CallsSoap.nsmap"

#define SAME(condition)                                                                                                \
    if (!(condition)) {                                                                                                \
        fprintf(stderr, "line %d: not so: %s\n", __LINE__, #condition);                                                \
        return 1;                                                                                                      \
    }
#define CALLED(call)                                                                                                   \
    if ((call) != SOAP_OK) {                                                                                           \
        soap_print_fault(soap, stderr);                                                                                \
        return 1;                                                                                                      \
    }

int main(int argc, char **argv) {
    struct soap *soap = soap_new1(SOAP_C_UTFSTRING);
    const char *url = argv[argc - 1];
    LONG64 terms[] = {1, 2, 39};
    struct ns1__TotalTerm term;
    soap_default_ns1__TotalTerm(soap, &term);
    term.__sizeitem = 3;
    term.item = terms;
    struct ns1__TotalResponse total;
    CALLED(soap_call_ns1__Total(soap, url, NULL, &term, &total));
    SAME(total.result == 42);
    struct ns1__NowResponse now;
    CALLED(soap_call_ns1__Now(soap, url, NULL, &now));
    SAME(now.result && !strcmp(now.result, "now"));
    struct ns1__RefuseResponse refused;
    SAME(soap_call_ns1__Refuse(soap, url, NULL, "so", &refused) != SOAP_OK);
    SAME(soap_fault_string(soap) && !strcmp(soap_fault_string(soap), "so"));
    soap_destroy(soap);
    soap_end(soap);
    soap_free(soap);
    return 0;
}
