/* Shows username tokens with what gSOAP makes of the description: token URL USER PASSWORD */
#include "soapH.h"
#include "MatrixSoap.nsmap"
#include "wsseapi.h"

#define SAME(condition)                                                                                                \
    if (!(condition)) {                                                                                                \
        fprintf(stderr, "line %d: not so: %s\n", __LINE__, #condition);                                                \
        soap_print_fault(soap, stderr);                                                                                \
        return 1;                                                                                                      \
    }

static int show(const char *url, const char *user, const char *password, int is_digest, int is_right) {
    struct soap *soap = soap_new1(SOAP_C_UTFSTRING);
    soap_register_plugin(soap, soap_wsse);
    SAME(!(is_digest ? soap_wsse_add_UsernameTokenDigest : soap_wsse_add_UsernameTokenText)(soap, "Id", user, password));
    struct _ns1__Who who;
    struct _ns1__WhoResponse answer;
    soap_default__ns1__Who(soap, &who);
    int outcome = soap_call___ns1__Who(soap, url, NULL, &who, &answer);
    if (is_right) {
        SAME(outcome == SOAP_OK && answer.username && !strcmp(answer.username, user));
    } else {
        const char *code = *soap_faultcode(soap), *more = soap_fault_subcode(soap);
        SAME(outcome != SOAP_OK && code);
        SAME(strstr(code, "FailedAuthentication") || (more && strstr(more, "FailedAuthentication")));
    }
    soap_destroy(soap);
    soap_end(soap);
    soap_free(soap);
    return 0;
}

int main(int count, char **arguments) {
    if (count != 4)
        return 2;
    char wrong[200];
    snprintf(wrong, sizeof wrong, "%sx", arguments[3]);
    for (int is_digest = 0; is_digest < 2; is_digest++)
        if (show(arguments[1], arguments[2], arguments[3], is_digest, 1) || show(arguments[1], arguments[2], wrong, is_digest, 0))
            return 1;
    puts("done");
    return 0;
}
