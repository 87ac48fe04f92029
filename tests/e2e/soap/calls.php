<?php
// Calls a channel of rpc style with PHP's SoapClient: calls.php VERSION URL
[, $version, $url] = $argv;
ini_set('soap.wsdl_cache_enabled', '0');
error_reporting(E_ALL);

function same(mixed $found, mixed $expected, string $what): void {
    if ($found !== $expected) {
        fwrite(STDERR, "$what: " . var_export($found, true) . ' instead of ' . var_export($expected, true) . "\n");
        exit(1);
    }
}

$client = new SoapClient("$url?wsdl", [
    'soap_version' => $version === '1.1' ? SOAP_1_1 : SOAP_1_2,
    'features' => SOAP_SINGLE_ELEMENT_ARRAYS,
    'cache_wsdl' => WSDL_CACHE_NONE,
    'keep_alive' => false,
]);
$bytes = implode('', array_map('chr', range(0, 255)));
$given = [
    'text' => 'Zoë & <sons>', 'whole' => -7, 'ratio' => 1.5, 'flag' => true, 'price' => '12.50',
    'day' => '2024-02-29', 'moment' => '2024-02-29T12:30:15Z', 'pause' => 90.5,
    'id' => '00000000-0000-0000-0000-000000000005', 'content' => $bytes, 'kind' => 'trade',
    'main' => ['sku' => 'a', 'quantity' => 2], 'tags' => ['item' => ['x', '', 'y z']],
    'lines' => ['item' => [['sku' => 'b', 'quantity' => 3], ['sku' => 'c']]],
];
// Several results are an array, in the order of the description.
$answer = $client->Call(...array_values($given));
foreach (['text', 'whole', 'ratio', 'flag', 'price', 'day', 'pause', 'id', 'content', 'kind'] as $name) {
    same($answer[$name], $given[$name], $name);
}
same(strtotime($answer['moment']), strtotime($given['moment']), 'moment');
same([$answer['main']->sku, $answer['main']->quantity], ['a', 2], 'main');
same($answer['tags']->item, ['x', '', 'y z'], 'tags');
same(array_map(fn($line) => [$line->sku, $line->quantity], $answer['lines']->item), [['b', 3], ['c', 1]], 'lines');
same($client->Total(['item' => [1, 2, 39]]), 42, 'total');
same($client->Now(), 'now', 'now');
try {
    $client->Refuse('so');
    same('an answer', 'a fault', 'refuse');
} catch (SoapFault $fault) {
    same($fault->getMessage(), 'so', 'the fault');
}
$client->Notify("php calls $version");
